//! How partitions are read from the database: by which settings, and what their bounds are.

/// Nobody must wait for long behind us. And bounds are read as they are printed: a zone by its abbreviation
/// is ambiguous.
pub(in crate::postgres) const SETTINGS: &str = "select set_config('lock_timeout', '500ms', true), \
    set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true)";

/// The bounds of `part`, a row of `pg_class`, as [`FROM_MICROS`] and [`TO_MICROS`] take them.
pub(in crate::postgres) const BOUNDS: &str = "regexp_match(pg_get_expr(part.relpartbound, part.oid), 'FROM \\((.*)\\) TO \\((.*)\\)') as bounds";
/// Null where there is no bound.
pub(in crate::postgres) const FROM_MICROS: &str =
    "case when bounds[1] in ('MINVALUE', '''-infinity''') then null
    else (extract(epoch from trim('''' from bounds[1])::timestamptz) * 1000000)::bigint end";
/// The same of the other.
pub(in crate::postgres) const TO_MICROS: &str =
    "case when bounds[2] in ('MAXVALUE', '''infinity''') then null
    else (extract(epoch from trim('''' from bounds[2])::timestamptz) * 1000000)::bigint end";
