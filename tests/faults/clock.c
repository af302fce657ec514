/* A wall clock that a test can stop or set: preloaded into the milter (ld.so(8), LD_PRELOAD).
 *
 * The file that CLOCK_CONTROL names holds two 64-bit numbers: seconds to add to the time, and, unless it is 0, the
 * second since the epoch at which the clock stands. CLOCK_MONOTONIC is left alone: the kernel never sets it back. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile const int64_t *control;
static int (*kernels_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("CLOCK_CONTROL");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);

    kernels_clock = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    if (page == MAP_FAILED)
        abort(); /* without the control page the clock would never change, and the test would prove nothing */
    control = page;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = kernels_clock(id, now);

    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        if (control[1]) {
            now->tv_sec = control[1];
            now->tv_nsec = 0;
        } else {
            now->tv_sec += control[0];
        }
    }
    return result;
}

time_t time(time_t *result)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;

    (void) zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
