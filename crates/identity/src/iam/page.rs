//! Pages of a listing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ondol_wire::fault::Fault;

/// How many items a page has when nobody says.
const PAGE_ITEMS: usize = 100;

/// Items of one page, and where the next begins.
#[derive(Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub is_truncated: Option<bool>,
    pub marker: Option<String>,
}

/// The page after `marker`, of items in the order of their keys.
pub fn page<T>(
    mut items: Vec<(String, T)>,
    marker: Option<&str>,
    max_items: Option<i32>,
) -> Result<Page<T>, Fault> {
    let after = match marker {
        None => None,
        Some(marker) => {
            let bytes = URL_SAFE_NO_PAD.decode(marker).ok();
            let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            Some(key.ok_or_else(|| Fault::new("ValidationError", 400, "Invalid Marker."))?)
        }
    };
    let size = max_items.and_then(|items| usize::try_from(items).ok()).unwrap_or(PAGE_ITEMS).max(1);
    items.sort_by(|a, b| a.0.cmp(&b.0));
    items.retain(|(key, _)| after.as_ref().is_none_or(|after| key > after));
    let is_truncated = items.len() > size;
    items.truncate(size);
    let last = items.last().map(|(key, _)| URL_SAFE_NO_PAD.encode(key));
    Ok(Page {
        items: items.into_iter().map(|(_, item)| item).collect(),
        is_truncated: Some(is_truncated),
        marker: last.filter(|_| is_truncated),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let items: Vec<(String, i32)> = (0..5).rev().map(|n| (format!("k{n}"), n)).collect();
        let mut seen = Vec::new();
        let mut marker = None;
        loop {
            let page = page(items.clone(), marker.as_deref(), Some(2)).unwrap();
            assert_eq!(page.is_truncated, Some(page.marker.is_some()));
            seen.extend(page.items);
            marker = page.marker;
            if marker.is_none() {
                break;
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(page(items, Some("é"), None).unwrap_err().message, "Invalid Marker.");
    }
}
