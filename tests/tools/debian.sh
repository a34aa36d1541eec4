# Programs from Debian for the tests, without touching the system. To be sourced, not run.
#
# The packages come from the Debian archive that this machine's own apt sources name, checked by apt
# against Debian's archive keyring, and are unpacked under target/tools/ with every library they need,
# so that Debian 12 runs Debian 13's build. Nothing is installed; `cargo clean` removes it.
#
# Whoever sources it has set
#   folder        where under target/tools/ it all goes
#   package, suite_of_package, suite
#                 the package, and from which suite; its libraries are from `suite`
#   programs      the programs wanted of it: paths in the package, the first being the main one
#   version       the option that makes a program tell its version and end
#   version_status
#                 the exit status with which it does that, where it is not 0
#   otherwise     what to do where it cannot be brought
# It prints the main program's path on stdout and all else on stderr.

fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 1; }
say() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; }

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."
tools=${CARGO_TARGET_DIR:-target}/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
home=$tools/$folder
main=$home/$(basename "${programs[0]}")

if [ -x "$main" ]; then
  printf '%s\n' "$main"
  exit 0
fi

# Can this machine do it at all?
[ -r /etc/os-release ] || fail "this is not Debian: $otherwise"
distribution=$(. /etc/os-release && printf '%s' "${ID:-}")
codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
[ "$distribution" = debian ] || fail "this is ${distribution:-an unknown system}, not Debian: $otherwise"
for tool in apt-get apt-config dpkg flock; do
  command -v "$tool" >/dev/null || fail "$tool is missing: $otherwise"
done
architecture=$(dpkg --print-architecture)
[ "$architecture" = amd64 ] || fail "no $package is packaged for $architecture here: $otherwise"
keyring=
for candidate in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
  if [ -r "$candidate" ]; then keyring=$candidate; break; fi
done
[ -n "$keyring" ] || fail 'the archive keyring is missing: apt-get install debian-archive-keyring'

# One at a time; whoever waited finds the work done.
exec 9>"$tools/.lock"
flock 9
if [ -x "$main" ]; then
  printf '%s\n' "$main"
  exit 0
fi

rm -rf "$tools/.$folder".??????
work=$(mktemp -d "$tools/.$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
apt=$work/apt
# The package lists serve all programs: a second one asks only whether they are still those of now.
lists=$tools/.lists
mkdir -p "$lists/partial" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/log" "$apt/none" "$work/root" "$work/new/bin" "$work/new/lib"
touch "$apt/status"

# apt as this machine is set up (its proxies, say), but with folders of our own and without the
# commands that the system runs after an update of its own lists.
apt-config dump >"$apt/machine.conf"
{
  grep -Ev '^(APT::Update::(Pre|Post)-Invoke|DPkg::(Pre|Post))' "$apt/machine.conf"
  cat <<CONF
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "$apt/none";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "$apt/none";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$apt/sources";
Dir::State "$apt";
Dir::State::Lists "$lists";
APT::Get::List-Cleanup "false";
Dir::State::Status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Cache::Archives "$apt/cache/archives";
Dir::Log "$apt/log";
APT::Architecture "$architecture";
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::AllowInsecureRepositories "false";
Debug::NoLocking "true";
CONF
} >"$apt/private.conf"

# The archives that serve this machine's own release. Asking apt reads both formats of sources.
archives=$(apt-get update --print-uris -o Dir::State::Lists="$apt/lists" 2>>"$work/log" |
  sed -nE "s#^'(.*)/dists/($codename|$suite|oldoldstable|oldstable|stable|testing|unstable|sid)/InRelease' .*#\1#p" |
  awk '!seen[$0]++') || true
[ -n "$archives" ] || fail "the apt sources of this machine name no Debian archive: $otherwise"

suites=$(printf '%s\n' "$suite" "$suite_of_package" | awk '!seen[$0]++' | paste -sd ' ')
export APT_CONFIG=$apt/private.conf
mkdir "$apt/sources"
found=
for archive in $archives; do
  cat >"$apt/sources/adit.sources" <<SOURCES
Types: deb
URIs: $archive
Suites: $suites
Components: main
Architectures: $architecture
Targets: Packages
Signed-By: $keyring
SOURCES
  say "reading the package lists of $suites"
  if apt-get update --error-on=any </dev/null >>"$work/log" 2>&1; then found=1; break; fi
done
explain() { grep -E '^(E|W|Err)[: ]' "$work/log" | tail -n 5 >&2 || true; }
[ -n "$found" ] || { explain; fail "the Debian archive of this machine's apt sources gave no $suites: $otherwise"; }

# As seen from a machine with nothing installed, apt names the package and all that it links.
say "downloading $package and its libraries"
if ! apt-get install --download-only "$package/$suite_of_package" </dev/null >>"$work/log" 2>&1; then
  explain
  fail "the Debian archive gave no $package: $otherwise"
fi

root=$work/root
for deb in "$apt"/cache/archives/*.deb; do
  dpkg -x "$deb" "$root"
done

# Keep the programs, the loader and what the loader says they link; `--inhibit-cache` makes sure that
# none of it comes from this system.
loader=$root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
[ -x "$loader" ] || fail "the downloaded libc6 has no loader at its known place: $otherwise"
new=$work/new
cp -L "$loader" "$new/lib/"
for program in "${programs[@]}"; do
  cp "$root/$program" "$new/bin/" || fail "the downloaded $package has no $program: $otherwise"
  program=$(basename "$program")
  "$loader" --inhibit-cache --library-path "$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu" \
    --list "$new/bin/$program" >"$work/links" || fail "a library of $program is missing: $otherwise"
  awk '$2 == "=>" && $3 ~ /^\// { print $3 }' "$work/links" | while read -r library; do
    cp -L "$library" "$new/lib/"
  done
  # `exec`: the process that a test starts is the node itself, and so is the one that it kills.
  cat >"$new/$program" <<'WRAPPER'
#!/bin/sh
self=$(readlink -f "$0")
here=${self%/*}
name=${self##*/}
exec "$here/lib/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$here/lib" --argv0 "$name" "$here/bin/$name" "$@"
WRAPPER
  chmod +x "$new/$program"
  # shellcheck disable=SC2086 # no option at all, for a program that knows none
  ran=0
  "$new/$program" $version </dev/null >"$work/version" 2>&1 || ran=$?
  [ "$ran" -eq "${version_status:-0}" ] ||
    fail "the downloaded $program does not run on this machine: $otherwise"
done

# Whole or not at all.
rm -rf "$home"
mv -T "$new" "$home"
for deb in "$apt/cache/archives/${package}"_*.deb; do say "brought $(basename "$deb" .deb)"; done
printf '%s\n' "$main"
