-- One row a reading. `if not exists` throughout, so that a table restored from a dump, or made by
-- hand from this file, is taken over as it is.
create table if not exists telemetry (
    -- Never shown. It makes "newest first" a total order: two devices may measure in the same
    -- microsecond.
    id bigserial primary key,

    -- Devices are not registered anywhere, so there is no table to refer to.
    device_id text not null,

    -- When the device measured, to the microsecond.
    ts timestamptz not null,

    -- Doubles hold what a JSON number says, to the last digit; numeric would cost twice the space.
    temperature double precision not null,
    humidity double precision not null,
    battery double precision not null,

    -- When the row arrived here, for whoever looks into a delay.
    created_at timestamptz not null default now(),

    -- What turns "at least once" into "exactly once": a batch that is sent again, by this
    -- ingestor or by another, finds its rows here. A btree is read in both directions, so this
    -- one index also serves a device's readings, newest first, and each device's latest. A
    -- second one with ts descending would cost two fifths of the insert rate and serve nothing more.
    unique (device_id, ts)
);

-- All devices, newest first, and ranges of time.
create index if not exists telemetry_ts_idx on telemetry (ts desc);

-- Rows arrive in the order of created_at, which is what brin is for: a few pages for millions of
-- rows, where a btree would be written once a row.
create index if not exists telemetry_created_at_idx on telemetry using brin (created_at);
