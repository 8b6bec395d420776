//! The catalogue itself: ids, titles, clauses, and the errno matrix.
