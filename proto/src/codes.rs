//! gRPC's status codes by their names, as grpc-go prints them.

/// The names of all status codes, by number.
pub const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The number of `Unknown`.
const UNKNOWN: usize = 2;

/// Position of a status code's name; that of `Unknown` for a number that is none.
pub fn code_number(code: i32) -> usize {
    let number = usize::try_from(code).ok().filter(|number| *number < CODE_NAMES.len());
    number.unwrap_or(UNKNOWN)
}

/// The name of a status code; `Unknown` for a number that is none.
pub fn code_name(code: i32) -> &'static str {
    CODE_NAMES[code_number(code)]
}
