//! Makes tables what rows need, by what they are and not by what was done before: under the lock of the
//! migrations, after them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::look::look;
use super::need::{Mend, Need};
use super::rows::TableRows;
use super::tables::CachedTable;
use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::limits::{LOOK_LIMIT, QUERY_TIMEOUT};
use crate::postgres::locks;
use crate::postgres::schema::LOCK;
use crate::postgres::session::{Scope, Session};
use crate::postgres::table::quoted;
use crate::telemetry::mapping::BUILT_IN_TABLE;

/// Longest wait for other ingestors and for the statements; no table is rewritten.
const MEND_LIMIT: Duration = Duration::from_secs(20);

/// PostgreSQL's code for a right that a role has not.
const NO_RIGHT: &str = "42501";
/// And for a column of another type.
const MISMATCH: &str = "42804";
/// And for a table that is not there.
const NO_TABLE: &str = "42P01";

impl Database {
    /// Makes the tables of the configuration's mappings what they need. What only an operator can mend is
    /// said, and keeps no row of another table back.
    pub(in crate::postgres) async fn prepare_tables(&self) -> Result<(), Failure> {
        let mut needs = self.mapped.needs();
        if needs.is_empty() {
            return Ok(());
        }
        // Whatever fills it: an earlier configuration, or another ingestor, may have left values out.
        needs.entry(BUILT_IN_TABLE.to_owned()).or_default();
        match self.ensure(needs).await {
            // Rows that need it ask again.
            Err(failure)
                if matches!(
                    failure.sqlstate(),
                    Some(NO_RIGHT | MISMATCH | locks::NOT_AVAILABLE)
                ) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The tables of `rows`, made what these need, which may be more than the configuration does: they may
    /// come by an older one.
    pub(in crate::postgres) async fn known_for(
        &self,
        rows: &[TableRows<'_>],
    ) -> Result<Vec<Arc<CachedTable>>, Failure> {
        if let Some(known) = self.mapped.fit_for(rows) {
            return Ok(known);
        }
        self.ensure(self.mapped.needs_of(rows)).await?;
        self.mapped.fit_for(rows).ok_or_else(|| Failure::Unavailable {
            reason: "a table that rows are for is not there".to_owned(),
            sqlstate: Some(NO_TABLE.to_owned()),
        })
    }

    async fn ensure(&self, needs: BTreeMap<String, Need>) -> Result<(), Failure> {
        // Not one of those for batches, whose statements may not take as long.
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        session.set_scope(Scope::Transaction);
        let patience = session.allowance(QUERY_TIMEOUT);
        let mut mends = within(patience, self.look_at(&mut session, &needs)).await?;
        let mut why = None;
        if mends.values().any(|mend| !mend.ours.is_empty()) {
            let patience = session.allowance(MEND_LIMIT);
            match within(patience, self.mend(&mut session, &needs)).await {
                Ok(()) => mends.values_mut().for_each(|mend| mend.ours.clear()),
                Err(failure) if failure.sqlstate() == Some(NO_RIGHT) => why = Some(failure),
                Err(failure) => return Err(failure.while_migrating()),
            }
        }
        let statements = mends.into_iter().map(|(table, mend)| (table, mend.statements()));
        let statements: BTreeMap<String, String> = statements.collect();
        self.ask_operator(statements, why)
    }

    /// What is missing, by table.
    async fn look_at(
        &self,
        session: &mut Session,
        needs: &BTreeMap<String, Need>,
    ) -> Result<BTreeMap<String, Mend>, Failure> {
        session.begin(LOOK_LIMIT).await?;
        let mends = self.compare(session, needs).await?;
        session.end().await?;
        Ok(mends)
    }

    async fn compare(
        &self,
        session: &mut Session,
        needs: &BTreeMap<String, Need>,
    ) -> Result<BTreeMap<String, Mend>, Failure> {
        let names: Vec<&str> = needs.keys().map(String::as_str).collect();
        let found = look(session, &names).await.map_err(Failure::while_looking)?;
        let mend =
            |(name, need): (&String, &Need)| (name.clone(), need.mend(name, found.get(name)));
        let mends = needs.iter().map(mend).collect();
        self.mapped.learn(found);
        Ok(mends)
    }

    /// Does what is ours to do. Somebody else may have done it before we had the lock.
    async fn mend(
        &self,
        session: &mut Session,
        needs: &BTreeMap<String, Need>,
    ) -> Result<(), Failure> {
        session.begin(MEND_LIMIT).await?;
        session.run(format!("select pg_advisory_xact_lock({LOCK})")).await?;
        let mut mends = self.compare(session, needs).await?;
        mends.retain(|_, mend| !mend.ours.is_empty());
        if !mends.is_empty() {
            // Each by itself, as one may not be there yet, and before anything is changed that others wait for.
            for table in mends.keys() {
                session.run(locks::exclusive(&[quoted(table)])).await?;
            }
            let ours: Vec<&str> =
                mends.values().flat_map(|mend| &mend.ours).map(String::as_str).collect();
            session.run(ours.join("; ")).await?;
            self.compare(session, needs).await?;
        }
        session.end().await?;
        for statement in mends.into_values().flat_map(|mend| mend.ours) {
            tracing::info!(statement, "a table got what the mappings need of it");
        }
        Ok(())
    }

    /// Says once which statements would mend the tables, if any is needed.
    fn ask_operator(
        &self,
        statements: BTreeMap<String, String>,
        failure: Option<Failure>,
    ) -> Result<(), Failure> {
        let all: Vec<&str> =
            statements.values().map(String::as_str).filter(|text| !text.is_empty()).collect();
        let all = all.join("; ");
        let is_news = self.mapped.is_news(statements);
        if all.is_empty() {
            return Ok(());
        }
        let (why, sqlstate) = match failure {
            Some(failure) => (failure.to_string(), NO_RIGHT),
            None => ("a table is not what the mappings need".to_owned(), MISMATCH),
        };
        if is_news {
            tracing::warn!(
                reason = why,
                statements = all,
                "tables are not what the mappings need, and this service may not change them: their rows wait in the log until these statements are run"
            );
        }
        let reason = format!("{why}; run: {all}");
        Err(Failure::Unavailable { reason, sqlstate: Some(sqlstate.to_owned()) })
    }
}
