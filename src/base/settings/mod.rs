//! Where settings come from, and the list of what is wrong with them.
//!
//! Environment over `Rocket.toml` over defaults. Everything is read, checked and reported at once,
//! before anything else happens. A setting has one name: `MQTT_BROKER` in the environment,
//! `mqtt_broker` in `Rocket.toml`. An empty environment variable counts as not set, as compose files
//! leave them. Secrets are kept in [`Secret`], which never prints itself.
//!
//! Which settings there are is known to the rooms that use them.

mod rocket;
mod secret;
mod setting;
mod sources;

pub(crate) use secret::Secret;
pub(crate) use setting::Setting;
pub use setting::help;
pub(crate) use sources::environment;
pub use sources::{Mistakes, Sources};
