//! What has to be known of the database before rows go to it.
//!
//! Which one it is, see `lineage`, and whether it keeps what it confirms, see `durability`. Both are asked on
//! each new connection, together, because the way may be long.

use super::database::Database;
use super::durability;
use super::failure::Failure;
use super::limits::LOOK_LIMIT;
use super::session::Session;
use crate::base::time::Clock as _;

impl Database {
    /// Asks what is due, by way of `session`; whether anything was answered.
    ///
    /// # Errors
    /// [`Failure::WentBack`] if it may lack what it confirmed; others as of any question.
    pub(super) async fn look(&self, session: &mut Session) -> Result<bool, Failure> {
        let is_new = session.take_newness();
        let now = self.clock.monotonic();
        let look = self.lineage.begin_if_due(is_new, now);
        let mut is_durability_due = self.durability.is_due(is_new, now);
        let mut is_asked = false;
        if let Some(look) = look {
            let mut is_together = is_durability_due;
            while let Some(mut question) = self.lineage.question() {
                if is_together {
                    question = format!("{question}; {}", durability::QUESTION);
                }
                match session.ask(LOOK_LIMIT, &question).await {
                    Ok(rows) => {
                        is_asked = true;
                        if let (true, Some(answer)) = (is_together, rows.get(1)) {
                            is_durability_due = false;
                            self.durability.hear(answer)?;
                        }
                        if let Some(answer) = rows.first() {
                            self.lineage.judge(look, answer, session, &self.tables).await?;
                        }
                        break;
                    }
                    // Which of the two was refused is seen when they come alone.
                    Err(failure) if failure.is_of_statement() && is_together => is_together = false,
                    Err(failure) if failure.is_of_statement() => {
                        self.lineage.ask_for_less(&failure);
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        if is_durability_due {
            let rows = session.ask(LOOK_LIMIT, durability::QUESTION).await?;
            is_asked = true;
            rows.first().map_or(Ok(()), |answer| self.durability.hear(answer))?;
        }
        Ok(is_asked)
    }
}
