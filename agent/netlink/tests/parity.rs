//! Our batches on a real kernel, beside what `nft` does, and its connection tracking as we read it.
//!
//! Every test runs in a network namespace of its own, inside a user namespace in which the test is root; nothing of
//! the host is touched. It needs unprivileged user namespaces and `nft`, and fails where they are missing.

#![allow(clippy::unwrap_used, reason = "what fails in a test is to stop it there")]

mod parity {
    pub(crate) mod bridge;
    pub(crate) mod conntrack;
    pub(crate) mod errors;
    pub(crate) mod generated;
    pub(crate) mod listing;
    pub(crate) mod load;
    pub(crate) mod log;
    pub(crate) mod others;
    pub(crate) mod owner;
    pub(crate) mod peers;
    pub(crate) mod raw;
    pub(crate) mod support;
    pub(crate) mod tables;
    pub(crate) mod walks;
}

use std::panic;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use parity::{bridge, conntrack, errors, generated, listing, load, log, others, owner, peers, raw, support, walks};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // While there is one thread only.
    support::enter_user_namespace();
    let tests: &[(&str, fn())] = &[
        ("listing::nft_lists_ours_as_its_own", listing::nft_lists_ours_as_its_own),
        ("listing::what_nft_loads_is_read_as_ours", listing::what_nft_loads_is_read_as_ours),
        ("listing::what_is_committed_is_read_back", listing::what_is_committed_is_read_back),
        ("listing::random_tables_are_read_back", listing::random_tables_are_read_back),
        ("listing::every_operation_leaves_its_result", listing::every_operation_leaves_its_result),
        ("listing::foreign_things_are_named", listing::foreign_things_are_named),
        ("listing::counters_are_read", listing::counters_are_read),
        ("listing::damaged_dumps_never_panic", listing::damaged_dumps_never_panic),
        ("generated::nft_lists_ours_as_its_own", generated::nft_lists_ours_as_its_own),
        ("generated::goldens_list_the_same", generated::goldens_list_the_same),
        ("generated::kept_dumps_are_of_this_kernel", generated::kept_dumps_are_of_this_kernel),
        ("walks::after_each_commit_the_kernel_holds_the_mirror", walks::after_each_commit_the_kernel_holds_the_mirror),
        ("errors::a_stale_generation_is_a_restart", errors::a_stale_generation_is_a_restart),
        ("errors::another_verdict_names_the_key", errors::another_verdict_names_the_key),
        ("errors::a_missing_key_is_named", errors::a_missing_key_is_named),
        ("errors::a_missing_range_is_named", errors::a_missing_range_is_named),
        ("errors::an_unknown_chain_names_the_rule", errors::an_unknown_chain_names_the_rule),
        ("errors::what_is_there_already_is_drift", errors::what_is_there_already_is_drift),
        ("errors::a_refused_batch_changes_nothing", errors::a_refused_batch_changes_nothing),
        (
            "errors::what_answers_do_not_fit_is_a_refusal_all_the_same",
            errors::what_answers_do_not_fit_is_a_refusal_all_the_same,
        ),
        ("errors::without_the_capability_all_is_refused", errors::without_the_capability_all_is_refused),
        ("errors::nothing_to_do_is_proven_too", errors::nothing_to_do_is_proven_too),
        ("errors::an_unsure_change_is_never_called_current", errors::an_unsure_change_is_never_called_current),
        ("load::a_hundred_thousand_keys_in_one_batch", load::a_hundred_thousand_keys_in_one_batch),
        ("load::a_hundred_thousand_keys_in_chunks", load::a_hundred_thousand_keys_in_chunks),
        ("load::thousands_of_rules_and_elements", load::thousands_of_rules_and_elements),
        ("load::dumps_hold_together_beside_a_writer", load::dumps_hold_together_beside_a_writer),
        ("peers::rustables_reads_tables_chains_and_rules", peers::rustables_reads_tables_chains_and_rules),
        ("bridge::nft_lists_both_tables_as_its_own", bridge::nft_lists_both_tables_as_its_own),
        ("bridge::the_table_of_bridges_comes_and_goes", bridge::the_table_of_bridges_comes_and_goes),
        ("bridge::both_tables_are_owned_and_inherited", bridge::both_tables_are_owned_and_inherited),
        ("log::a_flood_hides_nobody_and_is_counted", log::a_flood_hides_nobody_and_is_counted),
        ("log::what_finds_no_room_is_refused_all_the_same", log::what_finds_no_room_is_refused_all_the_same),
        ("log::what_packets_fill_is_no_drift", log::what_packets_fill_is_no_drift),
        ("log::one_socket_listens_to_a_group", log::one_socket_listens_to_a_group),
        ("others::what_others_have_is_told", others::what_others_have_is_told),
        ("raw::whether_a_rule_would_be_taken_is_known", raw::whether_a_rule_would_be_taken_is_known),
        ("raw::services_are_translated", raw::services_are_translated),
        ("raw::errors_name_the_message", raw::errors_name_the_message),
        ("conntrack::flows_are_told_as_the_kernel_tracks_them", conntrack::flows_are_told_as_the_kernel_tracks_them),
        ("conntrack::translated_flows_differ_by_direction", conntrack::translated_flows_differ_by_direction),
        ("conntrack::zones_are_told", conntrack::zones_are_told),
        ("conntrack::each_of_thousands_is_shown_once", conntrack::each_of_thousands_is_shown_once),
        ("conntrack::entries_tell_what_the_kernel_counts", conntrack::entries_tell_what_the_kernel_counts),
        ("conntrack::flows_are_told_as_they_begin_and_end", conntrack::flows_are_told_as_they_begin_and_end),
        ("conntrack::lost_events_are_noticed", conntrack::lost_events_are_noticed),
        ("conntrack::without_the_capability_nothing_is_told", conntrack::without_the_capability_nothing_is_told),
    ];
    let of_owners: &[(&str, fn())] = &[
        ("owner::others_are_kept_out_while_the_owner_lives", owner::others_are_kept_out_while_the_owner_lives),
        ("owner::an_orphan_is_adopted_with_its_content", owner::an_orphan_is_adopted_with_its_content),
        ("owner::a_table_without_an_owner_is_foreign", owner::a_table_without_an_owner_is_foreign),
        ("owner::the_end_of_another_socket_orphans_nothing", owner::the_end_of_another_socket_orphans_nothing),
        ("owner::an_owned_table_can_be_replaced", owner::an_owned_table_can_be_replaced),
    ];
    let of_no_owners: &[(&str, fn())] =
        &[("owner::before_6_9_nobody_is_kept_out", owner::before_6_9_nobody_is_kept_out)];
    let of_this_kernel = if support::kernel() >= (6, 9) { of_owners } else { of_no_owners };
    let trials = tests
        .iter()
        .chain(of_this_kernel)
        .map(|(name, test)| Trial::test(*name, move || in_namespace(*test)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs a test on a thread that has a network namespace to itself.
fn in_namespace(test: fn()) -> Result<(), Failed> {
    let thread = std::thread::spawn(move || {
        support::enter_network_namespace();
        test();
    });
    thread.join().map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => Failed::from(*text),
        Err(panic) => match panic.downcast::<&str>() {
            Ok(text) => Failed::from(*text),
            Err(panic) => panic::resume_unwind(panic),
        },
    })
}
