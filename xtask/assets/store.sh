#!/bin/sh
# Runs what several trackers share: `store postgres` the database, `store redis` the swarm store.
#
# The first start of the database makes the passwords of both and the cluster key, in /secrets. Trackers read them there.
set -eu
umask 077

# secret FILE BYTES: makes a file of that many random bytes in hexadecimal digits, unless it is there.
secret() {
    [ -s "/secrets/$1" ] && return
    head -c "$2" /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"/secrets/$1.new"
    mv "/secrets/$1.new" "/secrets/$1"
}

case $1 in
postgres)
    secret cluster.key 32
    secret postgres.password 24
    secret redis.password 24
    programs=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
    if [ ! -e /data/pg ]; then
        rm -rf /data/new
        "$programs/initdb" -D /data/new --username=tracker --pwfile=/secrets/postgres.password --auth=scram-sha-256 \
            --encoding=UTF8 --locale=C
        echo 'host all all all scram-sha-256' >>/data/new/pg_hba.conf
        echo 'CREATE DATABASE tracker' | "$programs/postgres" --single -D /data/new postgres
        mv /data/new /data/pg
    fi
    exec "$programs/postgres" -D /data/pg -c 'listen_addresses=*' -c unix_socket_directories=/tmp
    ;;
redis)
    # Not on the command line, which others could read.
    printf 'requirepass %s\n' "$(cat /secrets/redis.password)" >/tmp/redis.conf
    # What is in it is written anew by the trackers after a loss, so nothing is kept on disk.
    exec redis-server /tmp/redis.conf --bind '* -::*' --dir /tmp --save '' --appendonly no \
        --maxmemory 200mb --maxmemory-policy noeviction
    ;;
*)
    echo "usage: store postgres|redis" >&2
    exit 2
    ;;
esac
