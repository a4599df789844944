#!/usr/bin/env bash
# fetch.sh FOLDER NAME...   gets real servers and tools, private to FOLDER
# fetch.sh --list           the names there are
#
# Takes Debian packages of the suite that a name asks for, with an apt configuration of its own: the machine's
# packages, libc and dpkg state stay untouched, no maintainer script runs, no daemon starts, root is not needed.
# Everything is unpacked below FOLDER/NAME/root, and each program gets a wrapper that starts it with that root's own
# dynamic loader and libraries, so that servers of any suite run on any Debian.
#   FOLDER/NAME/bin/*          the programs of NAME
#   FOLDER/NAME/versions.txt   what came
# A name that is complete is skipped; remove FOLDER/NAME to fetch it again. Several may run at once: they take turns.
# NAME@SUITE takes a known name from another suite (mariadb11@trixie, in FOLDER/mariadb11-trixie), PACKAGE@SUITE any
# package (age@bookworm). Packages come from the mirror that apt uses already; DEBIAN_MIRROR names another.
# Exit codes: 0 all there; 4 a package or a mirror cannot be had; 5 this machine cannot (no Debian); 2 bad usage.
set -euo pipefail

# name       suite     packages
table='
mysql9       sid       mysql-server-core,mysql-client-core,mysql-client
mariadb10    bookworm  mariadb-server-core,mariadb-server,mariadb-client-core,mariadb-client,mariadb-backup
mariadb11    trixie    mariadb-server-core,mariadb-server,mariadb-client-core,mariadb-client,mariadb-backup
restic       sid       restic
pgbackrest   sid       pgbackrest
ceph-rgw     sid       radosgw,ceph-common,ceph-base,ceph-mon,ceph-osd
postgres17   trixie    postgresql-17,postgresql-client-17
faketime     bookworm  faketime
'
# What packages need only while they are being installed; nothing of it runs here.
skip='systemd|systemd-.*|libsystemd-shared|debconf|adduser|passwd|login.*|dpkg|tar|perl|perl-base|perl-modules-.*'
skip+='|libperl5.*|locales|sysv.*|init-system-helpers|ucf|sensible-utils|base-files|base-passwd|bash|coreutils'
skip+='|util-linux.*|mount|grep|sed|gawk|mawk|debianutils|postgresql-common.*|postgresql-client-common|ssl-cert'
skip+='|openssl|python3.*|libpython3.*|lib.*-perl|ca-certificates|tzdata|galera-4|rsync|psmisc|iproute2|lsof'
skip+='|procps|gcc-.*-base|dbus.*|.*-doc'

die() { # exit-code message
  echo "fetch services: $2" >&2
  exit "$1"
}

if [ "${1:-}" = --list ]; then
  awk 'NF { print $1 "\t" $2 "\t" $3 }' <<<"$table"
  exit
fi
[ $# -ge 2 ] || die 2 'usage: fetch.sh FOLDER NAME...'
for tool in apt-get apt-cache dpkg dpkg-deb awk tar flock; do
  command -v "$tool" >/dev/null || die 5 "needs $tool: only a Debian machine can fetch servers"
done

mkdir -p "$1"
top=$(cd "$1" && pwd)
shift
arch=$(dpkg --print-architecture)
case $arch in
  amd64) loader=ld-linux-x86-64.so.2 triplet=x86_64-linux-gnu ;;
  arm64) loader=ld-linux-aarch64.so.1 triplet=aarch64-linux-gnu ;;
  *) die 5 "no servers for the architecture $arch" ;;
esac
# The well-known path of the loader is an absolute link in some releases, and would lead to this machine's own.
loader=usr/lib/$triplet/$loader

# Names that are complete need no mirror, no lock and no apt.
missing=()
for name in "$@"; do [ -e "$top/${name//@/-}/.done" ] || missing+=("$name"); done
[ ${#missing[@]} -gt 0 ] || exit 0

keyring=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
[ -r "$keyring" ] || die 5 'needs the package debian-archive-keyring: only Debian has these servers'

find_mirror() {
  local release
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  # Security and backports archives do not hold whole suites, so the release itself must be named.
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v r="$release" '$2 == "main" && ($1 == r || $1 ~ /^(stable|oldstable|testing|unstable|sid)$/) && !n++ { print $3 }'
}
mirror=${DEBIAN_MIRROR:-$(find_mirror)}
[ -n "$mirror" ] || die 4 "apt's sources name no Debian mirror; set DEBIAN_MIRROR"

exec 9>"$top/.lock"
flock 9

write_conf() { # suite: prints the path of an apt configuration of our own; lists are renewed every 12 hours
  local suite=$1 dir="$top/.apt/$1"
  mkdir -p "$dir/lists/partial" "$dir/archives/partial" "$dir/etc"
  : >"$dir/status"
  echo "deb [signed-by=$keyring arch=$arch] $mirror $suite main" >"$dir/etc/sources.list"
  case $suite in
    bookworm | trixie)
      echo "deb [signed-by=$keyring arch=$arch] $mirror $suite-updates main" >>"$dir/etc/sources.list"
      ;;
  esac
  cat >"$dir/apt.conf" <<CONF
Dir::Etc::sourcelist "$dir/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$dir";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::State::extended_states "$dir/extended_states";
Dir::Cache "$dir";
Dir::Cache::archives "$dir/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Log "$dir";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Get::List-Cleanup "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11 { DefaultEnabled "false"; };
Acquire::Retries "3";
// A mirror that stands still serves tests as well; what it signed is checked all the same.
Acquire::Check-Valid-Until "false";
APT::Update::Post-Invoke "";
APT::Update::Post-Invoke-Success "";
DPkg::Post-Invoke "";
CONF
  if [ ! -e "$dir/fresh" ] || [ -n "$(find "$dir/fresh" -mmin +720)" ]; then
    if apt-get -qq -c "$dir/apt.conf" update >&2 && ls "$dir"/lists/*_Packages* >/dev/null 2>&1; then
      touch "$dir/fresh"
    else
      die 4 "apt cannot read the suite $suite from its mirror"
    fi
  fi
  echo "$dir/apt.conf"
}

wrap_programs() { # root: a wrapper in front of every dynamically linked program
  local root=$1 pattern dir file up folders folder
  # Plugin folders stay off the library path: what is loaded from there is loaded by its full name.
  folders=$(cd "$root" && find usr/lib -name 'lib*.so*' -printf '%h\n' | sort -u |
    awk -v t="usr/lib/$triplet" '$0 != t && $0 !~ /\/(plugin|gconv|ossl-modules|engines-3|bitcode|rados-classes|erasure-code)$/')
  for pattern in usr/bin usr/sbin usr/libexec 'usr/lib/postgresql/*/bin'; do
    for dir in $(cd "$root" && ls -d $pattern 2>/dev/null); do
      up=$(awk -F/ '{ s = ""; for (i = 1; i <= NF; i++) s = s "/.."; print s }' <<<"$dir")
      for file in "$root/$dir"/*; do
        [ -f "$file" ] && [ ! -L "$file" ] || continue
        [ "$(head -c4 "$file" | od -An -tx1 | tr -d ' ')" = 7f454c46 ] || continue
        grep -qa -m1 ld-linux "$file" || continue # a static program needs no loader
        mkdir -p "${file%/*}/.elf"
        mv "$file" "${file%/*}/.elf/"
        {
          echo '#!/bin/sh'
          # The name that was called decides: initdb looks for postgres beside itself, mysqld behaves by its name.
          echo 'w=$(readlink -f "$0"); d=${w%/*}; r=$d'"$up"'; n=${0##*/}; [ -e "$d/$n" ] || n=${w##*/}'
          printf 'exec "$r/%s" --library-path "$r/usr/lib/%s' "$loader" "$triplet"
          for folder in $folders; do printf ':$r/%s' "$folder"; done
          echo '" --argv0 "$d/$n" "$d/.elf/${w##*/}" "$@"'
        } >"$file"
        chmod 755 "$file"
      done
    done
  done
}

fetch() { # name
  local name=$1 line suite packages conf archives wanted package list deb path base
  line=$(awk -v n="${name%@*}" '$1 == n' <<<"$table")
  if [ -n "$line" ]; then
    read -r _ suite packages <<<"$line"
    if [[ $name == *@* ]]; then suite=${name#*@}; fi
  elif [[ $name == *@* ]]; then
    suite=${name#*@} packages=${name%@*}
  else
    die 2 "no service is called $name; see --list"
  fi
  local dir="$top/${name//@/-}" started=$SECONDS
  local part="$dir.part"
  if [ -e "$dir/.done" ]; then return; fi # another run fetched it while this one waited for the lock
  conf=$(write_conf "$suite")
  archives="${conf%/*}/archives"
  wanted=()
  for package in ${packages//,/ }; do
    if apt-cache -c "$conf" show "$package" >/dev/null 2>&1; then wanted+=("$package"); fi
  done
  [ ${#wanted[@]} -gt 0 ] || die 4 "$suite has none of $packages for $arch"
  # All that the packages depend on, less what only their installation needs.
  list=$(apt-get -c "$conf" install -s --no-install-recommends "${wanted[@]}" | awk '$1 == "Inst" { print $2 }' |
    grep -vE "^($skip)\$" || :)
  list=$(printf '%s\n' $list "${wanted[@]}" | sort -u)
  (cd "$archives" && apt-get -qq -c "$conf" download $list) || die 4 "apt cannot download $name"
  rm -rf "$part"
  mkdir -p "$part/bin" "$part/root/usr"/{bin,sbin,lib,lib64}
  for base in bin sbin lib lib64; do ln -s "usr/$base" "$part/root/$base"; done
  : >"$part/programs"
  for package in $list; do
    deb=$(ls -t "$archives/${package}_"*.deb | head -1)
    echo "$package $(dpkg-deb -f "$deb" Version)" >>"$part/versions.txt"
    case ",$packages," in
      *,"$package",*) # only the programs of what was asked for are offered
        dpkg-deb -c "$deb" | awk '$1 ~ /^[-l]/ { print $6 }' |
          grep -E '^\./(usr/)?(s?bin|lib/postgresql/[0-9]+/bin)/' >>"$part/programs" || :
        ;;
    esac
    dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$part/root" --keep-directory-symlink --no-same-owner \
      --exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/locale/*' \
      --exclude './usr/share/lintian/*' --exclude './dev/*'
    rm -f "$deb"
  done
  wrap_programs "$part/root"
  while read -r path; do
    base=${path##*/}
    if [ ! -e "$part/bin/$base" ]; then ln -s "../root/${path#./}" "$part/bin/$base"; fi
  done < <(sort "$part/programs")
  chmod -R a+rX "$part" # servers run as another user when this runs as root
  touch "$part/.done"
  rm -rf "$dir"
  mv "$part" "$dir"
  echo "fetched $name: $(grep "^${packages%%,*} " "$dir/versions.txt"), $(du -sm "$dir" | cut -f1) MB, $((SECONDS - started)) s" >&2
}

for name in "${missing[@]}"; do fetch "$name"; done
