//! One suite over all backends, and what each of them promises beyond it. etcd's tests need the feature `etcd` and the
//! program `etcd` (Debian: `etcd-server`).

// clippy knows only functions marked as tests for tests.
#![allow(clippy::unwrap_used)]

mod backends;
mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
mod kill;
mod model;
mod reading;
mod watching;
mod writing;

/// Every test of the suite, for one backend.
macro_rules! contract {
    ($backend:ident, #[$attribute:meta]) => {
        mod $backend {
            contract! { @each $backend, #[$attribute],
                reading: get_shows_what_was_committed, a_list_is_sorted_and_stays_under_its_prefix,
                    pages_together_show_one_revision, a_limit_of_zero_counts, the_past_can_be_listed,
                    a_long_list_of_large_values_comes_whole;
                writing: every_commit_has_a_greater_revision, preconditions_guard_each_kind_of_write,
                    a_commit_happens_whole_or_not_at_all, what_no_backend_could_commit_is_refused,
                    a_deleted_key_is_gone_and_can_come_again, keys_expire_unless_written_again,
                    many_keys_expire_together, racing_increments_are_all_counted;
                watching: a_watch_delivers_every_kind_of_change, a_watch_from_the_past_replays_it,
                    a_watch_resumes_where_another_stopped, compacted_and_future_revisions_are_refused,
                    progress_comes_after_the_changes_it_covers, a_watch_under_concurrent_writers_equals_the_list,
                    a_watch_ends_when_the_store_closes;
            }
        }
    };
    (@each $backend:ident, #[$attribute:meta], $($file:ident: $($test:ident),*;)*) => {
        $($(
            #[$attribute]
            async fn $test() {
                crate::$file::$test(crate::backends::Subject::$backend().await).await;
            }
        )*)*
    };
}

contract!(memory, #[tokio::test(start_paused = true)]);
contract!(embedded_file, #[tokio::test]);
#[cfg(feature = "etcd")]
contract!(etcd_server, #[tokio::test]);
