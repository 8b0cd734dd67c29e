//! A `timestamptz` as PostgreSQL has it.
//!
//! Whoever else writes into the table may put in `infinity`, or a year that no calendar here goes up
//! to; the driver's own types panic on them.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

use crate::base::time::Timestamp;

/// Microseconds since the year 2000; the lowest and the highest number are the infinities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant(i64);

/// From 1970 to 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// 24 November 4714 BC, and the end of the year 294276.
const FIRST_MICROS: i64 = -211_813_488_000_000_000;
const LAST_MICROS: i64 = 9_223_371_331_199_999_999;
/// What RFC 3339 can say: the years 0 to 9999, since 1970.
const SHOWN_MICROS: std::ops::RangeInclusive<i64> =
    -62_167_219_200_000_000..=253_402_300_799_999_999;

impl Instant {
    pub(super) const INFINITY: Self = Self(i64::MAX);
    pub(super) const MINUS_INFINITY: Self = Self(i64::MIN);

    /// Since 1970; `None` where PostgreSQL has no such time.
    pub(super) fn from_unix_micros(micros: i128) -> Option<Self> {
        let micros = i64::try_from(micros - i128::from(EPOCH_MICROS)).ok()?;
        (FIRST_MICROS..=LAST_MICROS).contains(&micros).then_some(Self(micros))
    }

    /// Since 1970; `None` for the infinities.
    pub(super) fn unix_micros(self) -> Option<i128> {
        let is_finite = self != Self::INFINITY && self != Self::MINUS_INFINITY;
        is_finite.then(|| i128::from(self.0) + i128::from(EPOCH_MICROS))
    }

    /// `-infinity` if that lies before PostgreSQL's first; an infinity stays what it is.
    pub(super) fn earlier_by(self, micros: i64) -> Self {
        if self == Self::INFINITY {
            return self;
        }
        let earlier = self.0.saturating_sub(micros);
        if earlier < FIRST_MICROS { Self::MINUS_INFINITY } else { Self(earlier) }
    }

    /// `None` where RFC 3339 cannot say it.
    pub(super) fn timestamp(self) -> Option<Timestamp> {
        let micros = i64::try_from(self.unix_micros()?).ok()?;
        SHOWN_MICROS.contains(&micros).then(|| Timestamp::from_micros(micros)).flatten()
    }
}

impl From<Timestamp> for Instant {
    /// The nearest that PostgreSQL has.
    fn from(timestamp: Timestamp) -> Self {
        let micros = timestamp.as_micros().saturating_sub(EPOCH_MICROS);
        Self(micros.clamp(FIRST_MICROS, LAST_MICROS))
    }
}

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        <chrono::DateTime<chrono::Utc> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&self.0, buffer)
    }
}

impl Decode<'_, Postgres> for Instant {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let bytes = value.as_bytes()?;
        Ok(Self(i64::from_be_bytes(bytes.try_into()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_3339_cannot_say_has_no_timestamp_and_is_told_apart_all_the_same() {
        let shown = |instant: Instant| instant.timestamp().map(|at| at.to_string());
        let unix = |micros| Instant::from_unix_micros(micros).unwrap();
        assert_eq!(shown(unix(0)).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(
            shown(unix(253_402_300_799_999_999)).as_deref(),
            Some("9999-12-31T23:59:59.999999Z")
        );
        for instant in [
            Instant::INFINITY,
            Instant::MINUS_INFINITY,
            Instant(LAST_MICROS),
            Instant(FIRST_MICROS),
            unix(253_402_300_800_000_000),
        ] {
            assert_eq!(shown(instant), None, "{instant:?}");
        }
        assert_eq!(
            Instant(LAST_MICROS).unix_micros().and_then(Instant::from_unix_micros),
            Some(Instant(LAST_MICROS))
        );
    }

    #[test]
    fn a_timestamp_beyond_what_postgresql_has_becomes_the_nearest() {
        let latest = Timestamp::from_rfc3339("9999-12-31T23:59:59Z").unwrap();
        assert_eq!(Instant::from(latest).timestamp(), Some(latest));
        let earliest = Timestamp::from_micros(-9_000_000_000_000_000_000);
        assert_eq!(earliest.map(Instant::from), None);
        let early = Timestamp::from_micros(-8_000_000_000_000_000_000).unwrap();
        assert_eq!(Instant::from(early), Instant(FIRST_MICROS));
    }
}
