#!/bin/sh
# What the simulators run to switch a node: NAME {get|set|check} PARAMETER [VALUE]..., see ipmi_sim(1) under chassis_control.
# It ends at once, and what it starts holds none of its output: the simulator waits for both.
here=$(dirname "$0")
what=$2
shift 2
[ "$what" != set ] || echo "$(date +%T) set $*" >>"$here/log"
[ ! -e "$here/slow" ] || sleep 30

runs() { [ -s "$here/pid" ] && kill -0 "$(cat "$here/pid")" 2>/dev/null; }
on() {
    runs && return
    setsid "$here/start" </dev/null >>"$here/said" 2>&1 &
    echo $! >"$here/pid"
}
off() {
    runs || return
    kill -9 "$(cat "$here/pid")"
    rm -f "$here/pid"
}

case $what in
get) for parameter in "$@"; do
    case $parameter in
    power) if runs; then echo power:1; else echo power:0; fi ;;
    boot) echo "boot:$(cat "$here/boot" 2>/dev/null || echo default)" ;;
    *) exit 1 ;;
    esac
done ;;
set) while [ $# -ge 2 ]; do
    case $1 in
    power) if [ "$2" = 1 ]; then on; else off; fi ;;
    reset) off && on ;;
    shutdown) [ -e "$here/deaf" ] || off ;;
    boot) echo "$2" >"$here/boot" ;;
    *) ;;
    esac
    shift 2
done ;;
esac
exit 0
