-- Without a serial number: a primary key on it is refused by native partitions, by TimescaleDB and by
-- Citus, and it cost up to two fifths of PostgreSQL's time. The order is that of (ts, device_id).
--
-- On a table that was there before this takes an exclusive lock for milliseconds, whatever its size:
-- the ingestor gives up on it after a moment and comes back, so that nothing queues behind a long
-- reader. The column stays, with the numbers that are in it; new rows have none. The index on ts is made
-- anew at once where that takes no time, which is in a table without rows; else `ingestor schema index`
-- does it while rows come in.
do $$
declare
    wide constant regclass := to_regclass('telemetry');
    is_new constant boolean := (select xmin = pg_current_xact_id()::xid from pg_class where oid = wide);
    bytes bigint;
    serial record;
    descending record;
begin
    if is_new then
        alter table telemetry drop column if exists id;
    else
        select
            string_agg(format('drop constraint %I', conname), ', ') filter (where conname <> '') as key,
            bool_or(attnotnull) as is_required,
            max(case when attidentity <> '' then 'drop identity' else 'drop default' end) as source
        into serial
        from pg_attribute
        left join pg_constraint on conrelid = attrelid and conkey = array[attnum] and contype in ('p', 'u')
        where attrelid = wide and attname = 'id' and attnotnull
            and (atthasdef or attidentity <> '')
            and atttypid in ('int8'::regtype, 'int4'::regtype, 'int2'::regtype)
            -- A wider key is somebody's decision.
            and not exists (
                select from pg_constraint
                where conrelid = wide and attnum = any(conkey) and cardinality(conkey) > 1
            );
        if serial.is_required then
            begin
                execute 'alter table telemetry ' || concat_ws(', ', serial.key, 'alter id ' || serial.source);
                -- A primary key leaves it behind.
                alter table telemetry alter id drop not null;
            exception when dependent_objects_still_exist then
                raise warning 'telemetry keeps its serial number, because something refers to it: %', sqlerrm;
            end;
        end if;
    end if;

    select pg_relation_size(wide) + coalesce(sum(pg_relation_size(inhrelid)), 0) into bytes
    from pg_inherits where inhparent = wide;
    if bytes > 0 then
        return;
    end if;
    -- On other nodes, or in parts of parts, rows take no bytes here.
    perform 1 from telemetry limit 1;
    if found then
        return;
    end if;
    -- Descending, it grows at its left end, whose pages split in halves; ascending, it is read
    -- backwards as well.
    for descending in
        select indexrelid::regclass as index
        from pg_index
        join pg_class as of_index on of_index.oid = indexrelid
        join pg_am on pg_am.oid = relam and amname = 'btree'
        join pg_attribute on attrelid = indrelid and attnum = indkey[0] and attname = 'ts'
        where indrelid = wide and indnatts = 1 and indoption[0] & 1 = 1 and not indisunique
    loop
        execute format('drop index %s', descending.index);
    end loop;
    create index if not exists telemetry_ts_idx on telemetry (ts);
end
$$;
