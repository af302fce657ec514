/* A milter that does nothing: what libmilter itself costs, and so the floor for every program that is built on it.
 *
 * It asks for the same events as undisclosed, leaves the same ones without an answer, and accepts at the end of the
 * header, where undisclosed accepts a message that passes. Mail from rewrite@… it reads to its end, and then gives it
 * another To and takes its Cc out, as undisclosed does where it rewrites. It looks at nothing else. */

#include <libmilter/mfapi.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long x,
                             unsigned long y, unsigned long *wanted, unsigned long *leave_out, unsigned long *a,
                             unsigned long *b)
{
    (void)ctx, (void)x, (void)y;
    *wanted = actions & (SMFIF_CHGHDRS | SMFIF_ADDHDRS | SMFIF_QUARANTINE);
    *leave_out = steps & (SMFIP_NR_MAIL | SMFIP_NR_RCPT | SMFIP_NR_HDR | SMFIP_NOHELO | SMFIP_NOUNKNOWN | SMFIP_SKIP);
    *a = *b = 0;
    return SMFIS_CONTINUE;
}

static sfsistat on_connect(SMFICTX *ctx, char *name, _SOCK_ADDR *address)
{
    (void)ctx, (void)name, (void)address;
    return SMFIS_CONTINUE;
}

static sfsistat on_address(SMFICTX *ctx, char **words) /* MAIL and RCPT */
{
    (void)ctx, (void)words;
    return SMFIS_NOREPLY;
}

static sfsistat on_data(SMFICTX *ctx)
{
    (void)ctx;
    return SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
    (void)ctx, (void)name, (void)value;
    return SMFIS_NOREPLY;
}

static sfsistat on_end_of_header(SMFICTX *ctx)
{
    const char *sender = smfi_getsymval(ctx, "{mail_addr}");
    return sender && strncmp(sender, "rewrite@", 8) == 0 ? SMFIS_CONTINUE : SMFIS_ACCEPT;
}

static sfsistat on_end_of_message(SMFICTX *ctx)
{
    smfi_chgheader(ctx, "Cc", 1, NULL);
    smfi_chgheader(ctx, "To", 1, "undisclosed-recipients:;");
    return SMFIS_ACCEPT;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *chunk, size_t length)
{
    (void)ctx, (void)chunk, (void)length;
    return SMFIS_SKIP;
}

/* As undisclosed does on an inet socket, so that neither waits for a delayed acknowledgement: accepted sockets inherit
 * it from the listening one, which libmilter keeps to itself. */
static void without_nagle(void)
{
    for (int fd = 3; fd < 64; fd++) {
        int listens = 0, yes = 1;
        socklen_t size = sizeof listens;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }
}

int main(int count, char **words)
{
    struct smfiDesc milter = {
        .xxfi_name = "null",
        .xxfi_version = SMFI_VERSION,
        .xxfi_flags = SMFIF_CHGHDRS | SMFIF_ADDHDRS | SMFIF_QUARANTINE,
        .xxfi_connect = on_connect,
        .xxfi_envfrom = on_address,
        .xxfi_envrcpt = on_address,
        .xxfi_header = on_header,
        .xxfi_eoh = on_end_of_header,
        .xxfi_body = on_body,
        .xxfi_eom = on_end_of_message,
        .xxfi_data = on_data,
        .xxfi_negotiate = on_negotiate,
    };
    if (count != 2) {
        fprintf(stderr, "usage: null SOCKET\n");
        return 2;
    }
    if (smfi_setconn(words[1]) != MI_SUCCESS || smfi_setbacklog(1024) != MI_SUCCESS ||
        smfi_register(milter) != MI_SUCCESS || smfi_opensocket(0) != MI_SUCCESS)
        return 1;
    without_nagle();
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
