#!/bin/sh
# The role of the service, which owns its database and is no superuser, and that of the dashboard, which
# reads the service's tables. The image runs this once, when it has made a new database; the passwords are
# read from files and go through standard input.
set -eu
password=$(cat /run/secrets/database-password)
dashboard=$(cat /run/secrets/dashboard-password)
psql -X -q -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<SQL
create role iot login nosuperuser nocreatedb nocreaterole password '$password';
alter database "$POSTGRES_DB" owner to iot;
create role dashboard login nosuperuser nocreatedb nocreaterole password '$dashboard';
alter role dashboard set default_transaction_read_only = on;
alter role dashboard set statement_timeout = '30s';
alter default privileges for role iot grant select on tables to dashboard;
SQL
