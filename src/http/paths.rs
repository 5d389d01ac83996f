//! Paths as Go's `ServeMux` handles them: a path that is not in its shortest form is redirected.

use std::borrow::Cow;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tonic::body::Body;

use super::page;

/// The canonical path: `/v3beta/` is an old name of `/v3/`.
pub(super) fn meant(head: &Parts) -> Cow<'_, str> {
    let path = head.uri.path();
    match path.strip_prefix("/v3beta/") {
        Some(rest) => Cow::Owned(format!("/v3/{rest}")),
        None => Cow::Borrowed(path),
    }
}

/// The redirection of a request, if it needs one.
pub(super) fn redirection(head: &Parts, path: &str, gateway: bool) -> Option<Response<Body>> {
    let mut to = clean(path);
    if gateway && to == "/v3" {
        to.push('/');
    }
    if to == path {
        return None;
    }
    if let Some(query) = head.uri.query() {
        to = format!("{to}?{query}");
    }
    let mut response = match head.method {
        Method::GET | Method::HEAD => {
            let escaped = to.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let escaped = escaped.replace('"', "&#34;").replace('\'', "&#39;");
            let link = format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n");
            page(StatusCode::TEMPORARY_REDIRECT, "text/html; charset=utf-8", link)
        }
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response
        }
    };
    // It was a part of a valid address.
    response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(to).ok()?);
    Some(response)
}

/// The shortest equivalent path; a slash at the end stays.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => (),
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shortened_as_go_does() {
        let cases = [
            ("/v3/kv//range", "/v3/kv/range"),
            ("/v3/./kv/../x/", "/v3/x/"),
            ("/../", "/"),
            ("/", "/"),
            ("/v3/kv/range", "/v3/kv/range"),
        ];
        for (path, to) in cases {
            assert_eq!(clean(path), to, "{path}");
        }
    }
}
