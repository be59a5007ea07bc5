# Starts PostgreSQL, which does not run as root: then as the user that its package has made.
postgres=/usr/lib/postgresql/15/bin/postgres
if [ "$(id -u)" -eq 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$postgres" -D data
fi
exec "$postgres" -D data
