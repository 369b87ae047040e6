use super::*;
use crate::scratch::{Folder, reopen};
use crate::{Committed, Transaction};

fn event(function: &str, payload: &str) -> NewEvent {
    NewEvent {
        function: function.into(),
        head: Bytes::from_static(b"head"),
        payload: payload.to_owned().into(),
        enqueued_epoch_millis: 7,
    }
}

fn finish(id: EventId, ending: Ending) -> Change {
    Change::Finish { id, function: "f".into(), ending, follow_ups: Vec::new() }
}

#[tokio::test]
async fn what_was_queued_is_there_after_a_restart_with_what_its_attempts_left() {
    let folder = Folder::new("restart");
    let store = Store::open(&folder.0).unwrap();
    let mut followed = store.follow_events().await.unwrap();
    assert!(followed.backlog.is_empty());
    for payload in ["one", "two", "three"] {
        assert_eq!(store.queue(Change::Enqueue(event("f", payload))).await.unwrap(), Changed::Done);
    }
    let first = followed.arrivals.recv().await.unwrap();
    assert_eq!((first.id, &first.payload.as_ref().unwrap().bytes[..]), (1, &b"one"[..]));
    for (progress, answer) in [("first", Some(Bytes::from_static(b"a"))), ("p", None)] {
        let progress = Bytes::from_static(progress.as_bytes());
        store.queue(Change::Progress { id: 2, progress, answer, follow_ups: Vec::new() }).await.unwrap();
    }
    store.queue(finish(1, Ending::Succeeded)).await.unwrap();
    store.close().await;
    drop(store);

    let store = reopen(&folder.0);
    let backlog = store.follow_events().await.unwrap().backlog;
    let shown: Vec<_> = backlog.iter().map(|e| (e.id, e.payload_bytes, e.progress.as_deref())).collect();
    assert_eq!(shown, [(2, 3, Some(&b"p"[..])), (3, 5, None)]);
    assert_eq!(store.event_payload(3).unwrap().unwrap(), "three");
    assert_eq!(store.event_payload(1).unwrap(), None);
    assert_eq!(store.event_answer(2).unwrap().unwrap(), "a");
    assert_eq!(store.event_answer(3).unwrap(), None);
    let counts = Counts { accepted: 3, succeeded: 1, ..Counts::default() };
    assert_eq!(store.event_counts(), [("f".into(), counts)].into());
}

#[tokio::test]
async fn an_event_ends_once_and_its_id_is_not_given_again() {
    let folder = Folder::new("once");
    let store = Store::open(&folder.0).unwrap();
    store.queue(Change::Enqueue(event("f", "x"))).await.unwrap();
    for ending in [Ending::Delivered, Ending::Delivered, Ending::Discarded] {
        store.queue(finish(1, ending)).await.unwrap();
    }
    let (progress, follow_ups) = (Bytes::new(), vec![event("f", "y")]);
    let late = Change::Progress { id: 1, progress, answer: None, follow_ups };
    store.queue(late).await.unwrap();
    let counts = Counts { accepted: 1, delivered: 1, ..Counts::default() };
    assert_eq!(store.event_counts(), [("f".into(), counts)].into());
    drop(store);
    let store = reopen(&folder.0);
    store.queue(Change::Enqueue(event("f", "z"))).await.unwrap();
    assert_eq!(store.follow_events().await.unwrap().backlog[0].id, 2);
}

#[tokio::test]
async fn what_follows_comes_with_what_it_follows_also_when_the_queue_is_full() {
    let folder = Folder::new("full");
    let store = Store::open_with(&folder.0, Limits { events: 1, bytes: 20 }).unwrap();
    let large = event("f", "more than twenty bytes");
    assert_eq!(store.queue(Change::Enqueue(large)).await.unwrap(), Changed::Full);
    assert_eq!(store.queue(Change::Enqueue(event("f", "x"))).await.unwrap(), Changed::Done);
    assert_eq!(store.queue(Change::Enqueue(event("f", "y"))).await.unwrap(), Changed::Full);
    let follow_ups = vec![event("g", "a"), event("g", "b")];
    let change = Change::Finish { id: 1, function: "f".into(), ending: Ending::Succeeded, follow_ups };
    store.queue(change).await.unwrap();
    let backlog = store.follow_events().await.unwrap().backlog;
    assert_eq!(backlog.iter().map(|event| &*event.function).collect::<Vec<_>>(), ["g", "g"]);
}

#[tokio::test]
async fn events_and_documents_share_a_write_and_neither_disturbs_the_other() {
    let folder = Folder::new("both");
    let store = Store::open(&folder.0).unwrap();
    let (queued, committed) = tokio::join!(
        store.queue(Change::Enqueue(event("f", "x"))),
        store.commit(Transaction::default().put("k", &1)),
    );
    assert_eq!((queued.unwrap(), committed.unwrap()), (Changed::Done, Committed::At(1)));
    store.queue(Change::Enqueue(event("f", "y"))).await.unwrap();
    assert_eq!(store.revision(), 1, "an event is no change of a document");
}

#[tokio::test]
async fn a_flipped_bit_in_an_event_is_found() {
    let folder = Folder::new("damaged");
    let store = Store::open(&folder.0).unwrap();
    let long = "an event to be found in the file ".repeat(200);
    store.queue(Change::Enqueue(event("f", &long))).await.unwrap();
    store.close().await;
    drop(store);
    drop(reopen(&folder.0));
    let path = folder.0.join(DATABASE);
    let mut bytes = std::fs::read(&path).unwrap();
    let place = bytes.windows(20).position(|window| window == b"an event to be found").unwrap();
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let store = reopen(&folder.0);
    assert!(matches!(store.event_payload(1), Err(StoreError::DamagedEvent(1))));
}
