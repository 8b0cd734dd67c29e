//! Whose a reading is and of when: the templates and the time of a mapping, filled in.

use std::borrow::Cow;

use super::compiled::{Piece, Template, Time};
use super::found::View;
use super::path::Path;
use super::read::Reader;
use crate::base::time::Timestamp;
use crate::telemetry::rejection::{Reason, Rejection};
use crate::telemetry::validate::{TimeOfDay, check_device_id, check_timestamp};

impl<'a> Reader<'a> {
    pub(super) fn device_id(&self, view: &View<'_, '_>) -> Result<String, Rejection> {
        let Some(id) = self.render(&self.mapping.device, view) else {
            let what = "device: what it is made of is not there";
            return Err(self.rejection(Reason::MissingField, what));
        };
        check_device_id(&id)
            .map_err(|fault| self.rejection(fault.reason, &format!("device: {fault}")))?;
        Ok(id.into_owned())
    }

    /// The time, and the path that has it; none if it is that of the arrival. Elements get it a microsecond
    /// apart: several may be of one device. What becomes of a message depends on nothing but that time, so
    /// that it is the same when the message is delivered again.
    pub(super) fn timestamp(
        &self,
        view: &View<'_, '_>,
    ) -> Result<(Timestamp, Option<&'a Path>), Rejection> {
        let received_at = self.around.received_at;
        let index = view.place.map_or(0, |place| place.index);
        let micros = received_at.as_micros().saturating_add(i64::try_from(index).unwrap_or(0));
        let arrival = (Timestamp::from_micros(micros).unwrap_or(received_at), None);
        let Time::Payload { paths, slots, format, or_received } = &self.mapping.time else {
            return Ok(arrival);
        };
        let read = || {
            let there = self.first_there(view, slots);
            let Some((at, raw)) = there else {
                return Err((Reason::MissingField, "it is not there".to_owned()));
            };
            let time = format.read(raw).map_err(|what| (Reason::InvalidTimestamp, what))?;
            let clock = if *or_received { TimeOfDay::at(received_at) } else { self.around.clock };
            check_timestamp(time, self.around.rules, clock)
                .map_err(|fault| (fault.reason, fault.message.into_owned()))?;
            Ok((time, Some(&paths[at])))
        };
        match read() {
            Err(_) if *or_received => Ok(arrival),
            outcome => {
                outcome.map_err(|(reason, what)| self.rejection(reason, &format!("time: {what}")))
            }
        }
    }

    /// The text that a template makes; `None` if something is not there that it needs.
    pub(super) fn render<'f>(
        &self,
        template: &'f Template,
        view: &View<'f, '_>,
    ) -> Option<Cow<'f, str>>
    where
        'a: 'f,
    {
        if let [piece] = template.pieces.as_slice() {
            return self.piece(piece, view);
        }
        let mut text = String::new();
        for piece in &template.pieces {
            text.push_str(&self.piece(piece, view)?);
        }
        Some(text.into())
    }

    fn piece<'f>(&self, piece: &'f Piece, view: &View<'f, '_>) -> Option<Cow<'f, str>>
    where
        'a: 'f,
    {
        match piece {
            Piece::Text(text) => Some(text.as_str().into()),
            Piece::Capture(name) => {
                let filter = self.mapping.filters.get(self.filter)?;
                filter.captured(name, self.topic).map(Cow::Borrowed)
            }
            Piece::Key => view.place?.key.as_deref().map(Cow::Borrowed),
            Piece::Index => Some(view.place?.index.to_string().into()),
            Piece::Value(slot, _) => {
                let raw = view.get(*slot).filter(|raw| !self.is_missing(raw))?;
                raw.plain().map(Cow::Borrowed)
            }
        }
    }
}
