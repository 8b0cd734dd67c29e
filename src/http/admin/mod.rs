//! `/admin`: what an operator sees and changes. Everything asks for the token (`guards`).
//!
//! | route | file |
//! |---|---|
//! | `GET /admin/wal`, `GET /admin/wal/records` | `wal` |
//! | `POST /admin/flusher/pause`, `POST /admin/flusher/resume`, `POST /admin/flusher/reject` | `flusher` |
//! | `GET /admin/retention`, `POST /admin/retention/run` | `retention` |
//! | `GET /admin/dead-letters`, `DELETE /admin/dead-letters/<id>` | `dead_letters` |
//! | `POST /admin/dead-letters/<id>/replay`, `POST /admin/dead-letters/replay` | `replay`, by `replayer` |
//!
//! What blocks on the disk does so off the runtime, in steps, and holds a page at most; a few do at once, and
//! one more is a 503 after a while (`blocking`). Every
//! change is one line in the log that names what was changed, and neither payload nor token.

use rocket::Route;

mod blocking;
pub(super) mod dead_letters;
pub(super) mod flusher;
mod letter_id;
pub(super) mod replay;
pub(super) mod replayer;
pub(super) mod retention;
pub(super) mod wal;

pub(super) use blocking::Turns;

pub(super) fn routes() -> Vec<Route> {
    [
        wal::routes(),
        flusher::routes(),
        retention::routes(),
        dead_letters::routes(),
        replay::routes(),
    ]
    .concat()
}
