//! Lays the actors out on cores, starts and stops them.
