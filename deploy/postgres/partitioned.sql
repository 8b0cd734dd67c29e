-- The table for a new database, partitioned by time: README, "A table that grows". The service makes the
-- partitions, and whatever else there is to make.
set role iot;
create table if not exists telemetry (
    device_id text not null,
    ts timestamptz not null,
    temperature double precision not null,
    humidity double precision not null,
    battery double precision not null,
    created_at timestamptz not null default now(),
    unique (device_id, ts)
) partition by range (ts);
create index if not exists telemetry_ts_idx on telemetry (ts);
create index if not exists telemetry_created_at_idx on telemetry using brin (created_at);
