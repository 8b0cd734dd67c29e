//! What is handed to the intake, and what is answered once it is settled.

use std::time::Duration;

use super::exactly_once;
use super::exchange::{Change, Command};
use super::state::{Phase, Session};
use crate::intake::queue::{AckToken, Packet, Settled};
use crate::mqtt::packet::{Answer, Publish, Qos, Sent};

impl Session {
    pub(super) fn message(&mut self, publish: Publish, commands: &mut Vec<Command>) {
        let Phase::Connected(link) = &mut self.phase else { return };
        // What comes while stopping is left with the broker.
        if self.is_stopping {
            return;
        }
        // What was sent before comes before all that is new (MQTT 3.1.1, 4.6).
        self.may_come_again &= publish.dup || publish.qos == Qos::AtMostOnce;
        let position = match publish.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce(packet_id) => {
                link.window.received();
                Some(link.order.push(Answer::PubAck(packet_id), false))
            }
            Qos::ExactlyOnce(packet_id) => {
                let content = exactly_once::content(&publish);
                if publish.dup && self.received.has(packet_id, &content) {
                    link.order.push(Answer::PubRec(packet_id), true);
                    self.answer(commands);
                    return;
                }
                link.window.received();
                link.unreceived.insert(packet_id, content);
                Some(link.order.push(Answer::PubRec(packet_id), false))
            }
        };
        let packet = match publish.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce(id) | Qos::ExactlyOnce(id) => {
                Some(Packet { id, is_again: publish.dup, session: self.sessions })
            }
        };
        let ack = AckToken { epoch: self.epoch, position };
        commands.push(Command::Forward { publish, packet, ack });
    }

    pub(super) fn settled(
        &mut self,
        settled: &[Settled],
        now: Duration,
        commands: &mut Vec<Command>,
    ) {
        let Phase::Connected(link) = &mut self.phase else { return };
        let mut is_broken = false;
        for settled in settled {
            let (Settled::Stored(ack) | Settled::GivenUp(ack)) = settled;
            if ack.epoch != self.epoch {
                continue;
            }
            match settled {
                Settled::Stored(_) if !is_broken => {
                    ack.position.into_iter().for_each(|position| link.order.settle(position));
                }
                Settled::Stored(_) => {}
                Settled::GivenUp(_) => is_broken = true,
            }
        }
        let answered = self.answer(commands);
        if is_broken {
            self.leave(now, commands);
        } else if let Phase::Connected(link) = &mut self.phase
            && let Some(width) = link.window.acked(answered)
        {
            commands.push(Command::Report(Change::NarrowWindow(width)));
        }
    }

    /// Sends the answers that may leave; returns how many.
    pub(super) fn answer(&mut self, commands: &mut Vec<Command>) -> u64 {
        let Phase::Connected(link) = &mut self.phase else { return 0 };
        let mut answered = 0;
        while let Some(answer) = link.order.pop_due() {
            if let Answer::PubRec(packet_id) = answer
                && let Some(content) = link.unreceived.remove(&packet_id)
            {
                self.received.received(packet_id, content);
            }
            link.has_acked |= matches!(answer, Answer::PubAck(_) | Answer::PubRec(_));
            answered += 1;
            commands.push(Command::Send(Sent::Answer(answer)));
        }
        answered
    }
}
