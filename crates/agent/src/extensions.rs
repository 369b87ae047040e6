//! The extensions of one environment: who has registered, who is ready, who waits for the end.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::oneshot;

/// Extensions of one environment at most, as on AWS.
pub const EXTENSIONS_MAX: usize = 10;

/// AWS's error type and sentence; the status is always 403.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(pub &'static str, pub String);

#[derive(Debug)]
pub struct Extensions {
    /// Those the launcher started, by file name; each may register once.
    started: Vec<(String, bool)>,
    registered: BTreeMap<u128, Registered>,
    open: bool,
    /// Of a Lambda (default) function: extensions may ask to hear of every invocation.
    is_classic: bool,
    /// Once it was said, whoever asks for the first time hears it at once.
    shutdown: Option<Bytes>,
}

#[derive(Debug)]
struct Registered {
    name: String,
    /// Its place among the started ones; none for one inside the runtime's process.
    external: Option<usize>,
    wants_shutdown: bool,
    wants_invoke: bool,
    /// It was told of an invocation and has not asked for the next event.
    busy: bool,
    /// It asked for its first event: its own initialisation is over.
    ready: bool,
    waits: Option<oneshot::Sender<Bytes>>,
    /// It was told of the end. AWS's own crate asks again at once, and then waits for nothing.
    told: bool,
}

impl Extensions {
    pub fn new(started: Vec<String>, is_classic: bool) -> Self {
        let started = started.into_iter().map(|name| (name, false)).collect();
        Self { started, registered: BTreeMap::new(), open: true, is_classic, shutdown: None }
    }

    pub fn register(&mut self, id: u128, name: &str, events: &[String]) -> Result<(), Refusal> {
        if !self.open {
            let text = "Extension registration is closed";
            return Err(Refusal("Extension.RegistrationClosed", text.into()));
        }
        if self.registered.len() >= EXTENSIONS_MAX {
            let text = format!("Extension limit ({EXTENSIONS_MAX}) reached");
            return Err(Refusal("Extension.TooManyExtensions", text));
        }
        let external = self.started.iter().position(|(started, _)| started == name);
        if self.registered.values().any(|other| other.name == name) {
            let text = format!("An extension with the name {name} is registered already");
            return Err(Refusal("Extension.AlreadyRegistered", text));
        }
        let is_internal_with_events = if self.is_classic {
            // One inside the runtime's process ends with it: it cannot hear of that.
            external.is_none() && events.iter().any(|event| event == "SHUTDOWN")
        } else {
            external.is_none() && !events.is_empty()
        };
        if is_internal_with_events {
            let text = "No events allowed for internal extensions";
            return Err(Refusal("Extension.InvalidEventType", text.into()));
        }
        if let Some(other) =
            events.iter().find(|event| *event != "SHUTDOWN" && !(self.is_classic && *event == "INVOKE"))
        {
            return Err(Refusal("Extension.InvalidEventType", format!("{other}: ErrorInvalidEventType")));
        }
        if let Some(place) = external {
            self.started[place].1 = true;
        }
        let registered = Registered {
            name: name.into(),
            external,
            wants_shutdown: events.iter().any(|event| event == "SHUTDOWN"),
            wants_invoke: events.iter().any(|event| event == "INVOKE"),
            busy: false,
            ready: false,
            waits: None,
            told: false,
        };
        self.registered.insert(id, registered);
        Ok(())
    }

    pub fn name(&self, id: u128) -> Option<&str> {
        self.registered.get(&id).map(|registered| registered.name.as_str())
    }

    /// Whether every started extension has registered, so that the runtime may start.
    pub fn all_registered(&self) -> bool {
        self.started.iter().all(|(_, registered)| *registered)
    }

    /// Whether every registered extension has asked for its first event.
    pub fn all_ready(&self) -> bool {
        self.registered.values().all(|registered| registered.ready)
    }

    pub fn close_registration(&mut self) {
        self.open = false;
    }

    /// Waits for the next event, which is the last.
    pub fn next(&mut self, id: u128) -> Option<oneshot::Receiver<Bytes>> {
        let registered = self.registered.get_mut(&id)?;
        registered.ready = true;
        registered.busy = false;
        let (tell, told) = oneshot::channel();
        match &self.shutdown {
            Some(event) if registered.wants_shutdown && !registered.told => {
                registered.told = tell.send(event.clone()).is_ok();
            }
            _ => registered.waits = Some(tell),
        }
        Some(told)
    }

    /// Tells those who asked for it of an invocation.
    pub fn invoke(&mut self, event: &Bytes) {
        for registered in self.registered.values_mut().filter(|registered| registered.wants_invoke) {
            registered.busy = true;
            if let Some(waits) = registered.waits.take() {
                // One that went away is missed by its next request, or by its end.
                let _ = waits.send(event.clone());
            }
        }
    }

    /// Whether all that were told of an invocation have asked for the next event.
    pub fn all_free(&self) -> bool {
        self.registered.values().all(|registered| !registered.busy)
    }

    /// Tells those who asked for it that the environment ends; gives the started ones that did not.
    pub fn shut_down(&mut self, reason: &str, deadline_millis: i64) -> Vec<usize> {
        let event = json!({"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_millis});
        let event = Bytes::from(event.to_string());
        for registered in self.registered.values_mut().filter(|registered| registered.wants_shutdown) {
            if let Some(waits) = registered.waits.take() {
                // One that went away does not hear it.
                registered.told = waits.send(event.clone()).is_ok();
            }
        }
        self.shutdown = Some(event);
        let told: Vec<usize> =
            self.registered.values().filter(|r| r.wants_shutdown).filter_map(|r| r.external).collect();
        (0..self.started.len()).filter(|place| !told.contains(place)).collect()
    }

    /// Each one's name, state and events, as `platform.extension` tells them.
    pub fn states(&self) -> Vec<serde_json::Value> {
        let of_registered = self.registered.values().map(|registered| {
            let events: Vec<&str> =
                [("INVOKE", registered.wants_invoke), ("SHUTDOWN", registered.wants_shutdown)]
                    .into_iter()
                    .filter_map(|(event, wanted)| wanted.then_some(event))
                    .collect();
            let state = if registered.ready { "Ready" } else { "Registered" };
            json!({"name": registered.name, "state": state, "events": events})
        });
        let silent = self.started.iter().filter(|(_, registered)| !registered);
        of_registered
            .chain(silent.map(|(name, _)| json!({"name": name, "state": "Started", "events": []})))
            .collect()
    }

    pub fn started_name(&self, place: usize) -> &str {
        self.started.get(place).map_or("", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn registration_follows_the_rules_of_managed_instances() {
        let mut extensions = Extensions::new(words(&["outer"]), false);
        let refused = |result: Result<(), Refusal>| result.unwrap_err();
        assert!(!extensions.all_registered());
        let invoke = refused(extensions.register(1, "outer", &words(&["INVOKE", "SHUTDOWN"])));
        assert_eq!(invoke, Refusal("Extension.InvalidEventType", "INVOKE: ErrorInvalidEventType".into()));
        let inner = refused(extensions.register(1, "inner", &words(&["SHUTDOWN"])));
        assert_eq!(inner.1, "No events allowed for internal extensions");
        extensions.register(1, "outer", &words(&["SHUTDOWN"])).unwrap();
        assert_eq!(refused(extensions.register(2, "outer", &[])).0, "Extension.AlreadyRegistered");
        assert!(extensions.all_registered() && !extensions.all_ready());
        for id in 2..=10 {
            extensions.register(id, &format!("inner-{id}"), &[]).unwrap();
        }
        assert_eq!(refused(extensions.register(11, "eleventh", &[])).1, "Extension limit (10) reached");
        extensions.close_registration();
        assert_eq!(refused(extensions.register(11, "late", &[])).0, "Extension.RegistrationClosed");
    }

    #[test]
    fn of_a_default_function_extensions_hear_of_every_invocation() {
        let mut extensions = Extensions::new(words(&["outer"]), true);
        extensions.register(1, "outer", &words(&["INVOKE", "SHUTDOWN"])).unwrap();
        extensions.register(2, "inner", &words(&["INVOKE"])).unwrap();
        assert!(extensions.register(3, "other", &words(&["SHUTDOWN"])).is_err());
        let (mut outer, mut inner) = (extensions.next(1).unwrap(), extensions.next(2).unwrap());
        assert!(extensions.all_ready() && extensions.all_free());
        extensions.invoke(&Bytes::from_static(b"event"));
        assert_eq!(
            (outer.try_recv().unwrap(), inner.try_recv().unwrap()),
            (Bytes::from("event"), Bytes::from("event"))
        );
        let _outer = extensions.next(1).unwrap();
        assert!(!extensions.all_free());
        let _inner = extensions.next(2).unwrap();
        assert!(extensions.all_free());
    }

    #[test]
    fn the_end_is_told_to_those_who_asked_also_when_they_ask_late() {
        let mut extensions = Extensions::new(words(&["a", "b", "c"]), false);
        extensions.register(1, "a", &words(&["SHUTDOWN"])).unwrap();
        extensions.register(2, "b", &words(&["SHUTDOWN"])).unwrap();
        extensions.register(3, "c", &[]).unwrap();
        let mut a = extensions.next(1).unwrap();
        let mut c = extensions.next(3).unwrap();
        assert!(extensions.next(4).is_none() && !extensions.all_ready());
        assert_eq!(extensions.shut_down("spindown", 7), [2]);
        let told = a.try_recv().unwrap();
        assert!(told.starts_with(br#"{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":7}"#));
        assert_eq!(extensions.next(2).unwrap().try_recv().unwrap(), told);
        assert!(extensions.next(2).unwrap().try_recv().is_err(), "it is told once");
        assert!(c.try_recv().is_err());
    }
}
