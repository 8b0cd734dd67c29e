-- The names of devices, so that a list of them costs as much as the list is long, and not a walk
-- through the table. The ingestor puts a name here in the transaction of its first row; those of rows
-- that were there before are put here step by step, afterwards.
create table if not exists telemetry_devices (
    device_id text primary key
);

-- How far work has come that takes more than one step, so that it goes on there after a restart.
create table if not exists _iot_ingestor_progress (
    task text primary key,
    -- The last name that is done.
    position text,
    is_done boolean not null default false
);

do $$
declare
    wide constant regclass := to_regclass('telemetry');
    held record;
begin
    -- A table of this transaction has no rows yet, whose names could be missing.
    insert into _iot_ingestor_progress (task, is_done)
    select 'devices', xmin = pg_current_xact_id()::xid from pg_class where oid = wide
    on conflict do nothing;

    -- Whoever may read or write readings may do so with their devices.
    for held in
        select distinct grantee, lower(privilege_type) as privilege
        from pg_class, aclexplode(relacl)
        where oid = wide and privilege_type in ('SELECT', 'INSERT') and grantee <> relowner
    loop
        execute format(
            'grant %s on telemetry_devices to %s',
            held.privilege,
            case held.grantee when 0 then 'public' else held.grantee::regrole::text end
        );
    end loop;
end
$$;
