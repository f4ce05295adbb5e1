"""The shell scripts that run on a board or phone: POSIX sh, as dash, busybox, bash and Android's mksh take it.

They hold no single quote and no backslash: some login shells (fish) read those differently even when quoted. What
they say of a full disk is read by edgekit: they say it in English.
"""

#: $1: the folder to make ours in, or nothing. Prints our folder and waits until its standard input ends (this machine
#: closed it or died, or the link dropped); then ends what runs and removes the folder: only one that mktemp made and
#: that holds our marker.
KEEPER = """
export LC_ALL=C
umask 077
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/edgekit-XXXXXX") || exit 1
: >"$folder/.edgekit" || { rmdir "$folder"; exit 1; }
finish() {
  trap : HUP INT TERM PIPE
  ours=
  [ -f "$folder/.edgekit" ] && rm -f "$folder/.edgekit" && ours=yes
  for run in "$folder"/.edgekit-run-*; do
    [ -f "$run" ] && read -r pid <"$run" && { kill -9 "-$pid" || kill -9 "$pid"; } 2>/dev/null
  done
  case $ours$folder in yes*/edgekit-??????) ;; *) return ;; esac
  rm -rf -- "$folder" 2>/dev/null || { sleep 1; rm -rf -- "$folder"; }
}
trap "finish; exit 1" HUP INT TERM
echo "edgekit-folder:$folder"
while read -r _; do :; done
finish
[ -e "$folder" ] || echo removed
"""

#: $0: where the number of this process is written, then the command that it becomes. The session's end removes our
#: marker before it reads these numbers: no command starts that it does not find.
START = """
echo $$ >"$0" && [ -f "${0%/*}/.edgekit" ] && exec "$@"
"""

#: $1: our folder, $2: the name of this run, $3: the marker, $4: START, then the command. It has a process group of its
#: own where the device has setsid; it ends with it, with a link that drops, and with a hang-up from adbd. Its
#: output stands between two markers: before the first, some logins print a greeting; the second comes with the exit
#: code, and without it the device vanished, whatever ssh or adb say. mksh and busybox may miss any signal but KILL that
#: comes right after a fork.
RUN = """
run=$1/.edgekit-run-$2 marker=$3 start=$4
echo "$marker"
cd "$1" || { printf "%s 1" "$marker"; exit 1; }
shift 4
exec 3<&0
$(command -v setsid) sh -c "$start" "$run" "$@" <&3 3<&- &
child=$!
stop() { kill -9 "-$child" || kill -9 "$child"; } 2>/dev/null
{ while read -r _; do :; done; stop; } <&3 >/dev/null 2>&1 &
watch=$!
exec 3<&-
trap stop HUP
wait $child 2>/dev/null
code=$?
kill -9 $watch 2>/dev/null
wait $watch 2>/dev/null
kill -9 "-$child" 2>/dev/null
rm -f "$run"
printf "%s %d" "$marker" "$code"
"""

#: $1: our folder, $2: the name of a run; ends that run and says so.
STOP = """
run=$1/.edgekit-run-$2
[ -f "$run" ] && read -r pid <"$run" && { kill -9 "-$pid" || kill -9 "$pid"; } 2>/dev/null
echo edgekit-stopped
"""

#: $1, $2, …: names of files; prints the sha256 of each, or a dash for one that is not there.
HASHES = """
command -v sha256sum >/dev/null || sha256sum() { shasum -a 256; }
for file in "$@"; do
  if [ -f "$file" ]; then sha256sum <"$file" || exit 1; else echo -; fi
done
"""

#: $1: our folder, $2: the name of a file, which standard input brings.
RECEIVE = """
export LC_ALL=C
cd "$1" || exit 1
case $2 in */*) mkdir -p -- "${2%/*}" || exit 1 ;; esac
exec cat >"$2"
"""

#: $1: the name of a file; prints it as text.
PRINT = """
exec base64 <"$1"
"""
