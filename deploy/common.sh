# shellcheck shell=bash
# Packages and virtual environment for deploy/quickstart and deploy/test. To be sourced. It does not start, stop or
# configure a mail server of the host.

set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$project/.venv
python=/usr/bin/python3 # the system's: an unprivileged milter cannot run one below /root
install_log=
assume_yes=

if [[ -t 1 && -z ${NO_COLOR-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' plain=''
fi

# The packages that the project needs on a fresh system of these, and what each is for.
systems="Debian 12, Debian 13 and Ubuntu 24.04"
packages=(
    ca-certificates                           # pip's downloads
    gcc libc6-dev libmilter-dev python3-dev   # pymilter is compiled
    postfix                                   # the mail server that the milter is attached to
    python3 python3-venv
    swaks                                     # a mail client for the command line
    util-linux                                # setpriv, flock
)

fail() { # MESSAGE...: print the error and the remedy, and exit
    printf '%s%s%s\n' "$red" "$1" "$plain" >&2
    shift
    (($# == 0)) || printf '%s\n' "$@" >&2
    exit 1
}

require_debian() {
    local id='' like=''
    if [[ -r /etc/os-release ]]; then
        id=$(. /etc/os-release && echo "${ID-}")
        like=$(. /etc/os-release && echo "${ID_LIKE-}")
    fi
    if [[ " $id $like " != *" debian "* ]] || ! command -v apt-get >/dev/null; then
        fail "This script knows $systems only, and this is ${id:-another system}." \
            "Elsewhere, install what these Debian packages hold: ${packages[*]}" \
            "Then: python3 -m venv .venv && .venv/bin/pip install -e '.[test]'"
    fi
}

require_root() {
    if ((EUID != 0)); then
        fail "This needs root: it installs packages, and Postfix can only be started by root." "Run: sudo $0"
    fi
}

missing_packages() { # print the packages that are not installed
    local name
    for name in "${packages[@]}"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
    done
}

other_mail_server() { # print the installed mail server that Debian would remove for Postfix
    dpkg-query -W -f='${Package}\t${db:Status-Status}\t${Provides}\n' |
        awk -F'\t' '$2 == "installed" && $1 != "postfix" && $3 ~ /mail-transport-agent/ { print $1 }'
    if [[ -e /usr/sbin/sendmail ]] && ! dpkg-query -S /usr/sbin/sendmail >/dev/null 2>&1; then
        echo "/usr/sbin/sendmail (of no Debian package)"
    fi
}

ask_about_other_mail_server() {
    local other answer
    other=$(other_mail_server | paste -sd' ')
    [[ -n $other ]] || return 0
    echo "${bold}This machine has another mail server: $other.${plain}"
    echo "Debian keeps one mail server at a time: installing Postfix would remove it. Its configuration would stay."
    [[ -z $assume_yes ]] || return 0
    if [[ ! -t 0 ]]; then
        fail "Stopped: nothing was changed." "To go on all the same, say --yes."
    fi
    read -r -p "Remove it and go on? [y/N] " answer
    [[ $answer == [yY]* ]] || fail "Stopped: nothing was changed."
}

# Debian starts a service when its package is installed. Those of Postfix, PostgreSQL and the mail filters must not start
# on this host. invoke-rc.d and deb-systemd-invoke ask /usr/sbin/policy-rc.d, which is replaced during the installation
# and restored however this script ends.
policy=/usr/sbin/policy-rc.d
policy_before=$policy.before-undisclosed

forbid_postfix_service() {
    restore_service_policy # a killed run may have left ours
    if [[ -e $policy || -L $policy ]]; then
        mv "$policy" "$policy_before"
    fi
    cat >"$policy" <<END
#!/bin/sh
# Written by $project/deploy while it installs packages, and removed when it has.
case "\$1" in postfix* | postgresql* | opendkim* | rspamd* | mimedefang*) exit 101 ;; esac
[ ! -x $policy_before ] || exec $policy_before "\$@"
END
    chmod 755 "$policy"
}

restore_service_policy() {
    if grep -qs "^# Written by .*/deploy while it installs packages" "$policy"; then
        rm -f "$policy"
    fi
    if [[ -e $policy_before || -L $policy_before ]]; then
        mv -f "$policy_before" "$policy"
    fi
}

spinner=

finish() {
    stop_spinner
    restore_service_policy
}

# Bash handles a signal when the foreground command has ended: never in the middle of dpkg.
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_spinner() { # LABEL
    local began=$SECONDS
    [[ -t 1 ]] || return 0
    while kill -0 $$ 2>/dev/null; do
        printf '\r  %s%s %3d s  %s%s\e[K' "$dim" "$1" $((SECONDS - began)) "$(latest_word)" "$plain"
        sleep 0.3
    done &
    spinner=$!
}

stop_spinner() {
    [[ -n $spinner ]] || return 0
    kill "$spinner" 2>/dev/null || true
    wait "$spinner" 2>/dev/null || true
    spinner=
    printf '\r\e[K'
}

step() { # LABEL COMMAND...: run the command with its output in the log; print one line with its duration
    local label=$1 began=$SECONDS status=0
    shift
    [[ -n $install_log ]] || install_log=$(mktemp /tmp/undisclosed-install.XXXXXX)
    printf '\n--- %s\n' "$*" >>"$install_log"
    start_spinner "$label"
    "$@" >>"$install_log" 2>&1 </dev/null || status=$?
    stop_spinner
    if ((status != 0)); then
        tail -n 15 "$install_log" >&2
        fail "$label: failed with status $status." "All of the output: $install_log"
    fi
    printf '  %s✓%s %s %s%d s%s\n' "$green" "$plain" "$label" "$dim" $((SECONDS - began)) "$plain"
}

latest_word() { # print the last line of the running step's output, cut to fit beside its label
    tail -c 400 "$install_log" | tr '\r' '\n' | tr -cd '[:print:]\n' | grep -v '^ *$' | tail -n 1 | cut -c 1-50 || true
}

apt() {
    # No questions, no overwritten configuration files, no restarted services (needrestart).
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get --quiet --yes \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef "$@"
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    if [[ " ${missing[*]} " == *" postfix "* ]]; then
        ask_about_other_mail_server
    fi
    echo "Installing ${missing[*]}"
    step "Debian's package lists" apt update
    forbid_postfix_service
    if [[ " ${missing[*]} " == *" postfix "* ]]; then
        step "Postfix's answers: no configuration" debconf-set-selections \
            <(echo "postfix postfix/main_mailer_type select No configuration")
    fi
    step "Debian packages" apt install --no-install-recommends "${missing[@]}"
    restore_service_policy
}

require_python() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or later is needed, and $python is $("$python" --version)." "$systems have it."
}

make_environment() { # EXTRA: make .venv with the project and this extra of pyproject.toml
    local extra=$1 stamp=$venv/.set-up-$1 made_for=$venv/.made-for here mark
    # Its scripts work only in the directory and with the Python for which it was made.
    here=$(printf '%s\n' "$project" "$("$python" --version)")
    if [[ -e $made_for && $(<"$made_for") != "$here" ]]; then
        rm -rf "$venv"
    elif [[ -e $venv && $(readlink -f "$venv/bin/python") != "$(readlink -f "$python")" ]]; then
        fail "$venv was made with another Python than the system's ($python)." "Move it away and start again."
    fi
    # Its contents depend on pyproject.toml alone: the project itself is linked, not copied.
    mark=$(sha256sum <"$project/pyproject.toml")
    [[ ! -e $stamp || $(<"$stamp") != "$mark" ]] || return 0
    [[ -x $venv/bin/pip ]] || step "Virtual environment .venv" "$python" -m venv "$venv"
    echo "$here" >"$made_for"
    step "Python packages" "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "${project}[$extra]"
    echo "$mark" >"$stamp"
}

set_up() { # EXTRA: packages and environment, one run at a time
    local lock
    require_debian
    require_root
    exec {lock}>/run/lock/undisclosed-set-up
    flock "$lock"
    install_packages
    require_python
    make_environment "$1"
    exec {lock}>&-
    [[ -z $install_log ]] || rm -f "$install_log"
}
