#!/bin/sh
# The role of the service: it owns its database, and is no superuser. The image runs this once, when it
# has made a new database; the password is read from a file and goes through standard input.
set -eu
password=$(cat /run/secrets/database-password)
psql -X -q -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<SQL
create role iot login nosuperuser nocreatedb nocreaterole password '$password';
alter database "$POSTGRES_DB" owner to iot;
SQL
