//! The table of the fields that devices measure. Decoding, validation, its settings, the columns of
//! blocks and of the table, the bodies of HTTP with their description and the simulator follow from it.
//!
//! What `wal/body` has written stays readable: a change here needs a new version of the block there.

/// A field that devices measure: one number in every reading.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its name in messages, in the table, and in JSON.
    pub(crate) name: &'static str,
    /// What its values are in.
    pub(crate) unit: &'static str,
    /// What is accepted, if nothing else is configured.
    pub(crate) bounds: Bounds,
    /// The setting of the lowest value that is accepted.
    pub(crate) min_setting: &'static str,
    /// The setting of the highest value that is accepted.
    pub(crate) max_setting: &'static str,
    /// Its label in `ingestor_rejections_total` if a value is out of bounds.
    pub(crate) rejection: &'static str,
    /// For descriptions.
    pub(crate) example: f64,
}

/// The fields, in the order of their columns.
pub(crate) const FIELDS: [Field; 3] = [
    Field {
        name: "temperature",
        unit: "°C",
        bounds: Bounds { min: -50.0, max: 100.0 },
        min_setting: "VALIDATE_TEMPERATURE_MIN",
        max_setting: "VALIDATE_TEMPERATURE_MAX",
        rejection: "temperature_out_of_range",
        example: 23.5,
    },
    Field {
        name: "humidity",
        unit: "%",
        bounds: Bounds { min: 0.0, max: 100.0 },
        min_setting: "VALIDATE_HUMIDITY_MIN",
        max_setting: "VALIDATE_HUMIDITY_MAX",
        rejection: "humidity_out_of_range",
        example: 65.2,
    },
    Field {
        name: "battery",
        unit: "%",
        bounds: Bounds { min: 0.0, max: 100.0 },
        min_setting: "VALIDATE_BATTERY_MIN",
        max_setting: "VALIDATE_BATTERY_MAX",
        rejection: "battery_out_of_range",
        example: 87.3,
    },
];

/// An inclusive range of a measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Lowest accepted value.
    pub min: f64,
    /// Highest accepted value.
    pub max: f64,
}

impl Bounds {
    /// Whether `value` lies within; what is not a number does not.
    #[must_use]
    pub(crate) fn contain(self, value: f64) -> bool {
        value >= self.min && value <= self.max
    }
}

/// How many there are.
pub(crate) const COUNT: usize = FIELDS.len();

/// One value a field, in the order of [`FIELDS`].
pub(crate) type Values = [f64; COUNT];
