-- Puts a partitioned table in the place of the plain one, which becomes its first partition. All of it in
-- the caller's transaction; every row up to the boundary has been found to be before it.
do $$
declare
    old record;
    part record;
    wide text;
begin
    lock table telemetry in access exclusive mode;
    if {is_empty} then
        if exists (select from telemetry) then
            raise exception 'rows have come in meanwhile: run it again';
        end if;
    elsif not exists (
        select from pg_constraint
        where conrelid = 'telemetry'::regclass and conname = 'telemetry_partition_bound'
            and convalidated
    ) then
        -- Without it, attaching would look through the whole table.
        raise exception 'a row that came in meanwhile lies behind the boundary: run it again';
    end if;
    select
        oid, relnamespace::regnamespace::text as schema, relowner, relowner::regrole::text as owner,
        relacl, relrowsecurity, relforcerowsecurity, obj_description(oid, 'pg_class') as said
    into old
    from pg_class where oid = 'telemetry'::regclass;
    wide := old.schema || '.telemetry';

    create temporary table reshaped_index on commit drop as
    select
        indexrelid, relname, indisunique,
        regexp_replace(pg_get_indexdef(indexrelid), '^.*? USING ', '') as over,
        conname, pg_get_constraintdef(pg_constraint.oid) as key
    from pg_index
    join pg_class on pg_class.oid = indexrelid
    left join pg_constraint on conindid = indexrelid and conrelid = indrelid and contype in ('p', 'u')
    where indrelid = old.oid and indisvalid;
    create temporary table reshaped_trigger on commit drop as
    select tgname, tgenabled, pg_get_triggerdef(oid) as definition
    from pg_trigger where tgrelid = old.oid and not tgisinternal;

    for part in select tgname from reshaped_trigger loop
        execute format('drop trigger %I on telemetry', part.tgname);
    end loop;
    alter table telemetry rename to telemetry_older;
    for part in select * from reshaped_index loop
        execute format('alter index %s.%I rename to %I', old.schema, part.relname,
            left('older_' || part.relname, 63));
    end loop;

    execute format('create table %s (like %s.telemetry_older including all excluding indexes
        excluding identity) partition by range (ts)', wide, old.schema);
    alter table telemetry drop constraint if exists telemetry_partition_bound;
    for part in select * from reshaped_index loop
        if part.key is null then
            execute format('create %s index %I on %s using %s',
                case when part.indisunique then 'unique' end, part.relname, wide, part.over);
        else
            execute format('alter table %s add constraint %I %s', wide, part.conname, part.key);
        end if;
    end loop;
    execute format('alter table %s attach partition %s.telemetry_older
        for values from (minvalue) to (%L)', wide, old.schema, '{boundary}');
    alter table telemetry_older drop constraint if exists telemetry_partition_bound;

    -- Who may do what, and who sees which rows.
    for part in
        select privilege_type, is_grantable, null::text as column,
            case grantee when 0 then 'public' else grantee::regrole::text end as grantee
        from aclexplode(old.relacl) where grantee <> old.relowner
        union all
        select privilege_type, is_grantable, quote_ident(attname),
            case grantee when 0 then 'public' else grantee::regrole::text end
        from pg_attribute, aclexplode(attacl)
        where attrelid = old.oid and attnum > 0 and not attisdropped and grantee <> old.relowner
    loop
        execute format('grant %s %s on %s to %s %s', part.privilege_type, '(' || part.column || ')',
            wide, part.grantee, case when part.is_grantable then 'with grant option' end);
    end loop;
    if old.relrowsecurity then
        alter table telemetry enable row level security;
    end if;
    if old.relforcerowsecurity then
        alter table telemetry force row level security;
    end if;
    for part in
        select polname, polpermissive, polcmd, polrelid,
            pg_get_expr(polqual, polrelid) as seen, pg_get_expr(polwithcheck, polrelid) as written,
            (
                select string_agg(case role when 0 then 'public' else role::regrole::text end, ', ')
                from unnest(polroles) as role
            ) as roles
        from pg_policy where polrelid = old.oid
    loop
        execute format('create policy %I on %s as %s for %s to %s %s %s', part.polname, wide,
            case when part.polpermissive then 'permissive' else 'restrictive' end,
            case part.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                when 'd' then 'delete' else 'all' end,
            part.roles, 'using (' || part.seen || ')', 'with check (' || part.written || ')');
    end loop;
    for part in select * from reshaped_trigger loop
        execute part.definition;
        if part.tgenabled <> 'O' then
            execute format('alter table %s %s trigger %I', wide,
                case part.tgenabled when 'D' then 'disable' when 'A' then 'enable always'
                    else 'enable replica' end, part.tgname);
        end if;
    end loop;
    if old.said is not null then
        execute format('comment on table %s is %L', wide, old.said);
    end if;
    if old.relowner <> (select relowner from pg_class where oid = 'telemetry'::regclass) then
        execute format('alter table %s owner to %s', wide, old.owner);
    end if;
end
$$;
