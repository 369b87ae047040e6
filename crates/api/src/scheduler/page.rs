//! Pages of a listing.

/// How many items a page has at most, and when nobody says. Source: AWS's API reference.
const PAGE_MAX: usize = 100;

/// The items after a token, in the order of their keys, and the token of those after.
pub fn page<T>(
    mut items: Vec<(String, T)>,
    token: Option<&str>,
    max_results: Option<i32>,
) -> (Vec<T>, Option<String>) {
    let size =
        max_results.and_then(|items| usize::try_from(items).ok()).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    items.retain(|(key, _)| token.is_none_or(|token| key.as_str() > token));
    items.sort_by(|a, b| a.0.cmp(&b.0));
    let next = items.get(size).and_then(|_| Some(items.get(size - 1)?.0.clone()));
    (items.into_iter().take(size).map(|(_, item)| item).collect(), next)
}
