"""The threat model as data: each attack, what comes of it, by what means, and the tests that carry it out.

A row without a test says in ``outcome`` why it can't be defended, and in ``mechanism`` what to do instead.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_HERE: Final = "tests/hostile/"
_TRUST: Final = "tests/trust/"
_GOSSIP: Final = "tests/gossip/"
_LIVE: Final = "tests/integration/test_hostile.py::"
_MQTT: Final = "tests/adapters/"
_ROTATION: Final = "tests/cli/test_rotation.py::"


class Row(NamedTuple):
    """One attack."""

    name: str
    attack: str
    outcome: str
    mechanism: str
    tests: tuple[str, ...] = ()


PARTS: Final[dict[str, str]] = {
    "A": "Anyone who can publish on the broker, and holds no key",
    "B": "A broker that lies, or that somebody else holds",
    "C": "A worker that somebody else holds",
    "D": "A writer's key in the wrong hands",
    "E": "Someone with access to a worker's disk",
    "G": "What may be learned without breaking in",
    "H": "Attacks that were found later",
}

ROWS: Final = (
    Row(
        "A1",
        "Garbage, unsigned bytes, a wrong signature",
        "Not applied, not stored, counted; the winner is put back.",
        "Ed25519 over the exact bytes, checked before anything inside them is used.",
        (
            _TRUST + "test_envelopes.py::test_every_flip_of_every_bit_of_an_envelope_is_rejected",
            _TRUST + "test_envelopes.py::test_every_truncation_and_extension_is_rejected",
            _LIVE + "test_forged_signature",
            _LIVE + "test_garbage",
            _LIVE + "test_a_stranger_s_signature",
        ),
    ),
    Row(
        "A2",
        "An old signed delta again, to a live worker",
        "Superseded; the winner is put back.",
        "The stamp (gen, epoch, key id, digest) orders all deltas; the greatest wins whatever came last.",
        (_LIVE + "test_replayed_older_delta",),
    ),
    Row(
        "A3",
        "Old signed deltas, to a fresh worker that holds nothing",
        "With an index in reach: degraded, and what is missing is named. Where indexes and values went back "
        "together, one "
        "peer that knows better mends it; a first worker alone can't tell, and would be ready.",
        "Indexes say what must be there; every peer that may publish repairs. Ship a replica or an export "
        "with the image "
        "of a worker that starts alone.",
        (
            _HERE
            + "test_publishers.py::"
            + "test_a03_a_fresh_worker_that_is_shown_old_values_and_the_newest_index_is_degraded",
            _HERE + "test_publishers.py::test_a03_one_peer_that_knows_better_is_enough",
        ),
    ),
    Row(
        "A4",
        "A freeze: nothing new is let through",
        "Not defended. Signatures do not say that nothing newer exists; values stay as they are.",
        "Compare the epochs that `tars-settings status` shows over two ways, and alarm when a push gets no replies. A "
        "signed, timed beacon is planned.",
    ),
    Row(
        "A5",
        "A hundred retained topics are emptied",
        "No value changes; all are filled again, by about one publish each.",
        "Unsetting is a signed tombstone. An empty payload is damage.",
        (
            _HERE + "test_publishers.py::test_a05_emptied_topics_change_nothing_and_are_filled_again",
            _LIVE + "test_empty_retained_payload",
        ),
    ),
    Row(
        "A6",
        "A good delta on the topic of another key",
        "Rejected on every other topic of its scope and outside it, counted, repaired over.",
        "A delta counts on the topics of the keys that it assigns.",
        (
            _HERE + "test_publishers.py::test_a06_a_delta_counts_on_the_topics_of_its_keys_alone",
            _LIVE + "test_delta_moved_to_another_key_s_topic",
        ),
    ),
    Row(
        "A7",
        "Deltas of a staging fleet in production, signed by the same writers",
        "Rejected. Two prefixes of one fleet are not kept apart: both trust one root.",
        "The fleet's id, a hash of its root key, is inside what is signed. Give each stage a root of its own.",
        (
            _HERE
            + "test_publishers.py::"
            + "test_a07_a_fleet_of_another_root_is_another_fleet_even_with_the_same_writers",
            _LIVE + "test_delta_of_another_fleet",
        ),
    ),
    Row(
        "A8",
        "A signature for one kind of thing, used for another",
        "Rejected for every pair of kinds.",
        "The purpose is inside what is signed.",
        (
            _HERE + "test_publishers.py::test_a08_a_signature_for_one_kind_never_passes_for_another",
            _TRUST + "test_envelopes.py::test_a_signature_counts_for_one_purpose_fleet_body_and_key",
        ),
    ),
    Row(
        "A9",
        "A good delta, sent without being retained",
        "The value counts; what the broker retains stays unknown, and no pending repair is cancelled.",
        "Retain As Published, believed once an exact probe confirmed it; on MQTT 3.1.1 the audit.",
        (
            _GOSSIP + "test_rules_broker.py::test_an_unset_flag_says_nothing",
            _GOSSIP + "test_rules_broker.py::test_a_flag_that_lies_cancels_nothing",
        ),
    ),
    Row(
        "A10",
        "Crowding: thousands of junk topics, there before ours",
        "A fresh worker gets every value; what strangers may fill is bounded.",
        "No wildcard replay is needed: trust, indexes, segments and the model's own keys are asked for by exact topic.",
        (
            _HERE + "test_publishers.py::test_a10_a_crowd_of_junk_topics_hides_no_value",
            _GOSSIP + "test_rules_reading.py::test_what_is_held_and_what_is_known_to_be_bad_is_bounded",
            _GOSSIP + "test_rules_reading.py::test_held_bytes_are_bounded_too",
        ),
    ),
    Row(
        "A11",
        "A huge payload",
        "On MQTT 5 it never arrives. On 3.1.1 it arrives, is refused by its size and is not kept: run the "
        "worker under a "
        "memory limit there.",
        "Maximum Packet Size in CONNECT; 48 KiB for an envelope before anything is decoded.",
        (
            _MQTT + "test_mqtt.py::test_what_is_over_our_limit_is_never_sent_to_us_on_5",
            _LIVE + "test_a_mebibyte_of_garbage",
        ),
    ),
    Row(
        "A12",
        "Deep nesting, endless numbers, broken text",
        "Malformed; no other error leaves the decoder.",
        "Size first; strict decoding; every error that the decoder is known to raise becomes one of ours.",
        (
            _HERE + "test_publishers.py::test_a12_bombs_are_malformed_wherever_they_are_put",
            "tests/core/test_wire.py::test_no_bytes_escape_decoding_as_anything_but_a_rejection",
            "tests/fuzz/test_fuzz.py::test_only_our_own_errors_escape",
        ),
    ),
    Row(
        "A13",
        "Duplicate keys, escapes, odd numbers: one text, two readings",
        "Malformed.",
        "A document must equal its own re-encoding.",
        ("tests/core/test_wire.py::test_a_body_that_is_not_its_own_encoding_is_malformed",),
    ),
    Row(
        "A14",
        "Names that look like others: homoglyphs, zero width, trailing newline",
        "Illegal at every entry.",
        "An ASCII grammar, matched in full.",
        ("tests/core/test_names.py::test_no_illegal_name_is_a_service_a_key_or_a_scope",),
    ),
    Row(
        "A15",
        "Wildcards, `$SYS`, NUL, slashes and control characters in names",
        "Illegal; a broker never sees them from us.",
        "The same grammar; the transport drops what a broker would punish.",
        (
            "tests/core/test_names.py::test_near_misses_are_nothing_of_ours",
            "tests/core/test_names.py::test_prefixes_are_one_to_three_plain_levels",
            _MQTT + "test_mqtt.py::test_punishable_topics_never_leave",
        ),
    ),
    Row(
        "A16",
        "A flood of publishes",
        "A push passes through it, and the session stays.",
        "What was found bad is known again by its hash before it is verified; all memory for strangers is bounded.",
        (
            _HERE + "test_publishers.py::test_a16_a_flood_does_not_keep_a_push_away",
            _GOSSIP + "test_rules_reading.py::test_what_is_held_and_what_is_known_to_be_bad_is_bounded",
        ),
    ),
    Row(
        "A17",
        "Repair as an amplifier: garbage on many topics, again and again",
        "A bounded rate of repairs, for a worker and for a topic; an alarm names what keeps coming.",
        "A budget, pauses that double, and an alarm at the sixth round.",
        (
            _GOSSIP + "test_repair_timer.py::test_repeated_topics_are_bounded_by_the_budget_whatever_their_number",
            _GOSSIP + "test_repair_timer.py::test_pauses_double_up_to_a_bound_and_the_sixth_round_alarms",
            "tests/sim/test_mutants.py::test_repair_without_a_budget_is_caught",
        ),
    ),
    Row(
        "A18",
        "A session with our client id",
        "The worker comes back and misses nothing. A thief who comes back too costs each of them a session a time.",
        "An id of its own for each process, with 64 random bits that only the broker sees; delays with jitter. Let the "
        "broker bind ids to users.",
        (_HERE + "test_publishers.py::test_a18_a_taken_session_comes_back_and_no_two_processes_share_an_id",),
    ),
    Row(
        "A19",
        "Lines forged in the log by names and values",
        "One line stays one line, and holds no value.",
        "Names that fail the grammar are not logged; values never are.",
        (
            _HERE + "test_publishers.py::test_a19_nothing_that_is_received_makes_a_line_of_the_log",
            _MQTT + "test_replica.py::test_it_logs_no_values",
        ),
    ),
    Row(
        "B1",
        "A split view: another state for each worker",
        "Not to be seen through one broker. It ends as soon as one peer sees both sides.",
        "Merging needs no change for it. Bridge a second broker, or compare `status` over another way.",
        (
            _HERE + "test_brokers.py::test_b01_a_split_view_ends_where_one_peer_sees_both_sides",
            "tests/sim/test_mesh.py::test_bridged_brokers_that_swapped_their_values_agree",
        ),
    ),
    Row(
        "B2",
        "Mix and match: the new value of one key, the old one of another",
        "One push is never mixed. Between pushes: degraded, with what is missing (as A3).",
        "The delta is the unit: each of its topics holds all of it.",
        (
            _HERE + "test_brokers.py::test_b02_one_push_can_not_be_mixed_with_an_older_one",
            "tests/core/test_registers.py::test_deltas_are_seen_whole_whichever_copy_came_first",
        ),
    ),
    Row(
        "B3",
        "False acknowledgements",
        "The push says accepted or unconfirmed, never retained.",
        "What counts is what was read back. A broker may still forget it a second later: `applied by n of m` says who "
        "else has it.",
        (_HERE + "test_brokers.py::test_b03_an_acknowledgement_is_not_believed",),
    ),
    Row(
        "B4",
        "Topics that nobody asked for, forged answers",
        "Not kept, and the session goes on.",
        "What counts is decided by topic and signature, never by which subscription it came through.",
        (
            _HERE + "test_brokers.py::test_b04_what_nobody_asked_for_is_not_kept",
            _GOSSIP + "test_replicator.py::test_scopes_that_are_not_followed_are_not_kept",
            _MQTT + "test_mqtt_hostile.py::test_a_refused_subscription_is_told_apart",
            _MQTT + "test_mqtt_hostile.py::test_garbage_ends_the_session_and_nothing_else",
        ),
    ),
    Row(
        "B5",
        "A replay that never ends, a connection that says nothing",
        "The worker runs at once on what it holds, and its state says so.",
        "No read waits for the network; deadlines for connecting and CONNACK; five seconds for catching up.",
        (
            _HERE + "test_brokers.py::test_b05_a_broker_that_never_ends_its_replay_holds_no_start_up",
            _MQTT + "test_mqtt_hostile.py::test_a_silent_broker_is_given_up_after_the_deadline",
            _MQTT + "test_mqtt_hostile.py::test_a_silent_tls_server_does_not_hold_connect_longer_than_its_deadline",
        ),
    ),
    Row(
        "B6",
        "The broker's credentials are stolen",
        "Not defended by us: whoever has them can publish (A) and read what is not secret (G1), and no more.",
        "Signatures and encryption are end to end. Use `mqtts://` outside the host, and a broker user for each worker.",
    ),
    Row(
        "C1",
        "A worker publishes settings",
        "Rejected everywhere.",
        "A worker holds no signing key: neither its environment nor its state directory has one.",
        (
            _HERE + "test_workers.py::test_c01_nothing_that_a_worker_holds_signs_a_setting",
            "tests/join/test_join.py::test_a_writer_outside_the_trust_document_is_refused",
        ),
    ),
    Row(
        "C2",
        "A worker empties or replaces retained topics",
        "As A2 and A5. Where workers may not publish, two keepers are enough.",
        "An access list that lets workers write presence only, with `TARS_SETTINGS_REPAIR=off` there.",
        (
            _HERE + "test_workers.py::test_c02_two_keepers_are_enough_where_workers_may_not_publish",
            _GOSSIP + "test_rules_reading.py::test_a_fleet_with_few_keepers_converges_and_refills_an_empty_broker",
        ),
    ),
    Row(
        "C3",
        "A worker reads other services' secrets",
        "It opens what its key ids open; a transplanted secret does not open.",
        "Secret keys have ids, and fleet, scope, key, key id and algorithm are authenticated. Give each service a key "
        "of its own.",
        (
            _TRUST + "test_secrets.py::test_a_transplanted_secret_does_not_open",
            _TRUST + "test_secrets.py::test_a_secret_under_another_key_id_or_algorithm_does_not_open",
            _TRUST + "test_secrets.py::test_a_missing_secret_key_is_named",
        ),
    ),
    Row(
        "C4",
        "A worker lies about itself, or about workers that do not exist",
        "No value and no epoch follows; `retained` stays the strongest result that is proven.",
        "Presence is unsigned and merges nothing.",
        (_HERE + "test_workers.py::test_c04_a_lie_in_presence_changes_no_value_and_no_epoch",),
    ),
    Row(
        "D1",
        "Writing within the grant",
        "Counts until the key is revoked; who wrote what, when and why is shown.",
        "Every value rests on a signed delta that names its key.",
        (
            "tests/cli/test_look.py::test_lists_document_holds_who_when_and_why",
            "tests/settings/test_explain.py::test_every_layer_is_named_strongest_first",
        ),
    ),
    Row(
        "D2",
        "Writing outside the grant",
        "Void everywhere, and the whole delta with it.",
        "Grants are matched on parsed segments.",
        (
            _TRUST + "test_envelopes.py::test_grants_match_parsed_segments",
            _TRUST + "test_envelopes.py::test_one_assignment_outside_the_grant_voids_the_whole_delta",
            _TRUST + "test_envelopes.py::test_an_endorsement_does_not_widen_a_grant",
        ),
    ),
    Row(
        "D3",
        "Fast forward: the last epoch there is",
        "Honest pushes fail and say so; one command later (`tars-settings keys compromise`) everybody writes again.",
        "gen comes before epoch in the order, and only the root raises it.",
        (
            _GOSSIP + "test_rules_chain.py::test_one_document_recovers_from_a_poisoned_epoch",
            "tests/cli/test_compromise.py::test_one_command_takes_the_fleet_back_from_a_stolen_key",
            "tests/core/test_registers.py::test_a_gen_outranks_every_epoch",
            "tests/sim/test_recovery.py::test_a_poisoned_fleet_of_twenty_recovers_during_a_partition",
            "tests/cli/test_compromise.py::test_twenty_workers_of_which_two_parts_are_cut_off_are_taken_back",
        ),
    ),
    Row(
        "D4",
        "Back-dating: an old epoch, signed after the revocation",
        "Void, whatever its epoch.",
        "A compromised key's deltas are all void, except for digests that the root endorsed.",
        (
            _TRUST + "test_envelopes.py::test_an_endorsement_saves_the_bytes_of_a_compromised_writer_and_never_a_head",
            _TRUST + "test_envelopes.py::test_verdicts_follow_from_bytes_and_trust_document_alone",
            "tests/settings/test_chain.py::test_a_compromised_writers_values_are_void",
            "tests/cli/test_compromise.py::test_the_only_writers_key_can_be_voided_and_its_good_values_stand",
        ),
    ),
    Row(
        "D5",
        "Equivocation: two deltas under one epoch",
        "All peers end with the same one, and both envelopes are told as evidence.",
        "The digest is the last part of the stamp; what was signed under an epoch is remembered.",
        (
            _GOSSIP + "test_equivocation.py::test_both_bodies_are_told_once_and_anyone_can_verify_them",
            _GOSSIP + "test_equivocation.py::test_all_peers_end_with_the_same_one",
            "tests/core/test_registers.py::test_one_writers_equal_epochs_are_ordered_by_digest",
            "tests/sim/test_mesh.py::test_one_key_on_two_hosts_ends_the_same_everywhere",
        ),
    ),
    Row(
        "D6",
        "One key on two hosts, in good faith",
        "As D5; the writer notices that its head moved without it.",
        "The high-water mark is on the disk before anything is published; a foreign counter in one's own head is told.",
        (
            _GOSSIP + "test_rules_reading.py::test_a_second_host_with_our_key_is_noticed_and_our_own_past_is_not",
            _GOSSIP + "test_replicator.py::test_a_writer_never_uses_an_epoch_twice_after_losing_all_but_its_mark",
        ),
    ),
    Row(
        "D7",
        "A retired key goes on writing",
        "Void beyond its retirement in each scope; what it wrote before stands.",
        "The trust document says up to where it counts.",
        (
            _TRUST + "test_envelopes.py::test_verdicts_follow_from_bytes_and_trust_document_alone",
            _TRUST + "test_envelopes.py::test_a_retired_writers_index_counts_up_to_its_counter",
            "tests/cli/test_keys.py::test_what_a_retired_writer_wrote_stands_and_nothing_after",
        ),
    ),
    Row(
        "D8",
        "A signed value that does harm",
        "What the model refuses is refused by each worker; what it lets pass and crashes on is left after the third "
        "start. All workers meet it at once: there is no staged rollout yet.",
        "Snapshots validate as a whole; new values are on probation. Say with constraints in the model what "
        "is harmful.",
        (
            _HERE
            + "test_writers.py::"
            + "test_d08_a_poison_pill_is_refused_by_each_of_ten_workers_and_what_comes_later_is_applied",
            "tests/join/test_probation.py::test_the_third_start_within_a_minute_runs_on_the_values_before_and_says_so",
        ),
    ),
    Row(
        "E1",
        "Rows of the replica are changed",
        "The row does not count, and is fetched again.",
        "Rows hold what was signed, and are verified when they are loaded.",
        (
            _HERE + "test_disk.py::test_e01_a_changed_column_of_the_replica_never_becomes_a_value",
            _GOSSIP + "test_replicator.py::test_every_row_of_the_replica_is_verified_again",
            "tests/settings/test_chain.py::test_nothing_unsigned_on_the_disk_reaches_settings",
        ),
    ),
    Row(
        "E2",
        "Replica and LKG go back together to an older state",
        "Not to be seen on the host; caught up as soon as the broker or a peer is reached.",
        "Indexes and live winners. An older state is one that was valid once.",
        (_HERE + "test_disk.py::test_e02_a_state_directory_that_went_back_is_caught_up_with_the_broker",),
    ),
    Row(
        "E3",
        "A pickle, a file name or settings planted in diskcache's database (CVE-2025-69872)",
        "Refused; nothing is executed, read or deleted. The same attacks succeed on plain diskcache.",
        "A Disk that takes known keys and inline bytes only, and a look at every row before diskcache sees one.",
        (
            "tests/adapters/test_lkg.py::test_what_was_planted_is_refused_and_the_next_write_begins_anew",
            "tests/adapters/test_lkg.py::test_the_disk_itself_refuses_what_the_look_at_the_rows_would_have_stopped",
            "tests/adapters/test_lkg.py::test_the_same_attacks_succeed_on_plain_diskcache",
        ),
    ),
    Row(
        "E4",
        "Links in the state directory, a directory that others may enter",
        "Refused, with the cure.",
        "Directory 0700 and files 0600 of our own user, looked at without following links.",
        (
            "tests/adapters/test_files.py::test_a_link_to_a_directory_and_a_file_are_refused",
            "tests/adapters/test_files.py::test_a_directory_that_others_may_enter_is_refused_with_the_cure",
            "tests/adapters/test_replica.py::test_what_is_not_ours_alone_is_refused",
            "tests/adapters/test_lkg.py::test_what_is_not_ours_alone_is_refused",
        ),
    ),
    Row(
        "E5",
        "A service's name as a path",
        "Impossible.",
        "Directories are named by hashes.",
        ("tests/settings/test_stored.py::test_directories_never_hold_the_services_name",),
    ),
    Row(
        "E6",
        "Secrets are read from the disk",
        "Ciphertext only, in every file and on every topic.",
        "Replica and LKG keep signed deltas, never resolved values; what came from the environment is not kept at all.",
        (
            _HERE + "test_disk.py::test_e06_a_secret_is_in_no_file_and_in_no_message",
            "tests/integration/test_canary.py::test_pushed_secrets_are_in_no_word_and_no_file",
            "tests/cli/test_push.py::test_a_secret_leaves_encrypted_and_appears_nowhere",
            "tests/test_canary_over_files.py::test_a_run_that_wrote_a_secret_fails_though_its_tests_pass",
        ),
    ),
    Row(
        "E7",
        "A forged LKG",
        "The seal is broken: an event, and never the same as missing.",
        "HMAC-SHA256 over all of it, compared in constant time; and the content is signed deltas anyway.",
        (
            _TRUST + "test_secrets.py::test_every_flip_and_every_length_breaks_a_seal",
            "tests/settings/test_stored.py::test_a_flipped_byte_breaks_the_seal",
            "tests/settings/test_stored.py::test_a_seal_does_not_replace_signatures",
            "tests/settings/test_stored.py::test_a_broken_seal_is_an_event_of_its_own",
        ),
    ),
    Row(
        "E8",
        "The seal key lies on the same disk",
        "Not defended against the same user: who reads the key can seal, but only deltas that were once signed.",
        "Give TARS_SETTINGS_SEAL_KEY from outside the disk, such as a credential of the service manager.",
        (
            "tests/settings/test_stored.py::test_the_seal_key_may_be_given_as_text_or_file",
            _TRUST + "test_secrets.py::test_another_seal_key_is_told_from_a_change",
        ),
    ),
    Row(
        "G1",
        "Whoever may subscribe reads names, times, sizes and all values that are no secrets",
        "Not defended: a signed value is readable by design.",
        "An access list at the broker, `mqtts://`, and `--secret` for what must not be read. Sizes of secrets show.",
    ),
    Row(
        "G2",
        "pydantic's errors hold their input",
        "No value in messages, errors(), notes, causes or logs.",
        "Errors are made anew without inputs, and raised without a cause that holds them.",
        (
            "tests/settings/test_chain.py::test_errors_name_the_source_and_never_the_value",
            "tests/settings/test_chain.py::test_an_argument_is_in_no_frame_of_ours",
            "tests/settings/test_live.py::test_messages_do_not_hold_values",
            "tests/integration/test_canary.py::test_a_push_that_a_worker_refuses_keeps_the_secret",
        ),
    ),
    Row(
        "G3",
        "Keys and secrets in repr, pickle and copies",
        "They show nothing, and refuse to be copied.",
        "Key types close those doors; secrets are pydantic's masked types.",
        (
            _TRUST + "test_secrets.py::test_keys_show_nothing_and_refuse_to_be_copied",
            "tests/settings/test_explain.py::test_secrets_are_masked_by_type_and_by_how_they_came",
        ),
    ),
    Row(
        "G4",
        "Timing",
        "No secret is compared byte by byte.",
        "hmac.compare_digest for seals; libsodium for the rest.",
        (_HERE + "test_leaks.py::test_g04_no_tag_or_key_is_compared_with_equals",),
    ),
    Row(
        "G5",
        "Core dumps, swap, the memory of forked children",
        "Not defended: Python can't wipe what it copied.",
        "Turn core dumps off and encrypt swap on hosts that hold keys; keep the root key on another machine.",
    ),
    Row(
        "H1",
        "A published schema that takes for ever to walk over: 119 bytes stopped every push",
        "It is no schema.",
        "References are followed and counted before anything reads the schema.",
        ("tests/settings/test_schema_shape.py::test_what_would_take_for_ever_to_walk_over_is_no_schema",),
    ),
    Row(
        "H2",
        "A published schema with a pattern that backtracks for ever",
        "Answered at once.",
        "Patterns run in an engine of linear time.",
        ("tests/settings/test_schema_shape.py::test_a_strangers_pattern_takes_linear_time",),
    ),
    Row(
        "H3",
        "Deltas that name a trust document that does not exist, to keep repair waiting",
        "Held until the chain was asked for, then void; a question a second at most.",
        "Who lies about a version is held only so long.",
        (
            _GOSSIP + "test_rules_broker.py::test_who_names_a_document_that_nobody_has_is_void_and_repaired_over",
            _GOSSIP + "test_rules_broker.py::test_a_stream_of_lies_about_trust_costs_a_question_a_second",
        ),
    ),
    Row(
        "H4",
        "An older trust document or floor",
        "Refused, and repaired over.",
        "Versions and floors never go back.",
        (
            _TRUST + "test_documents.py::test_a_lower_version_is_refused",
            _GOSSIP + "test_rules_floor.py::test_a_floor_never_goes_back_while_trust_stays",
            _GOSSIP + "test_rules_floor.py::test_an_old_peer_brings_nothing_back",
        ),
    ),
    Row(
        "H5",
        "Signatures added to what somebody else signed, so that peers hold different bytes",
        "Malformed, or no damage.",
        "Outside of what is signed, cosignatures count on trust documents only, up to sixteen, each root once.",
        (
            _GOSSIP + "test_rules_chain.py::test_cosignatures_are_malformed_where_one_writer_signs",
            _GOSSIP + "test_rules_chain.py::test_other_cosignatures_on_one_document_are_no_damage_and_too_few_are",
            _TRUST + "test_documents.py::test_a_threshold_counts_each_root_once",
        ),
    ),
    Row(
        "H6",
        "A segment with forged deltas, under an index that names it",
        "Visible until proven false, never stored or passed on; its writer is named.",
        "Only the index's own writer can do it. Its deltas' own signatures are checked before anything durable.",
        (
            _GOSSIP + "test_rules_reading.py::test_a_false_signature_voids_the_delta_names_its_writer_and_asks_again",
            _GOSSIP + "test_rules_reading.py::test_a_segment_carries_its_own_writers_valid_deltas_and_nothing_else",
            _GOSSIP + "test_rules_reading.py::test_nothing_unproven_is_published",
        ),
    ),
    Row(
        "H7",
        "Names and reasons that steer an operator's terminal",
        "Shown as text.",
        "Whatever came from outside is made printable before it is shown.",
        (
            "tests/cli/test_look.py::test_what_came_over_the_network_can_not_steer_a_terminal",
            "tests/cli/test_status.py::test_a_claim_can_not_steer_a_terminal",
            "tests/cli/test_units.py::test_printable_text_steers_nothing",
        ),
    ),
    Row(
        "H8",
        "One service's LKG, put in another's place; marks of a crash loop that never was",
        "The seal is broken; the marks do not count.",
        "Seals are bound to purpose, fleet and service.",
        (
            "tests/settings/test_stored.py::test_one_services_last_known_good_does_not_pass_for_anothers",
            _TRUST + "test_secrets.py::test_a_seal_is_broken_anywhere_else",
            "tests/join/test_probation.py::test_marks_that_somebody_else_wrote_do_not_count",
        ),
    ),
    Row(
        "H9",
        "Somebody else's marker, to make a peer believe that a topic is empty",
        "Answers nothing without the nonce; with it, a topic may be repaired once too often.",
        "Markers carry a nonce of the process and come back twice before silence is absence.",
        (
            _GOSSIP + "test_prober.py::test_a_strangers_marker_answers_nothing",
            _GOSSIP + "test_prober.py::test_silence_is_absence_only_after_the_marker_came_back_twice",
        ),
    ),
    Row(
        "H10",
        "Everything that was ever retained, put back at once, beside partitions and losses",
        "All peers end the same.",
        "The rules above together, in seeded storms.",
        ("tests/sim/test_storms.py::test_storms_end_well_and_every_fault_was_met",),
    ),
    Row(
        "H11",
        "Key files that others may read, links in place of key files",
        "Refused; the key is not used.",
        "Owner, mode and links are looked at on the open file.",
        (
            "tests/adapters/test_files.py::test_a_key_that_others_could_read_or_make_is_refused",
            "tests/adapters/test_files.py::test_a_key_of_someone_else_is_refused",
            "tests/adapters/test_files.py::test_a_key_is_not_written_through_a_link",
        ),
    ),
    Row(
        "H12",
        "Presence of thousands of workers that do not exist",
        "Not defended: a push that waits for them waits until its timeout, and `status` lists them.",
        "Presence is a claim. Let the broker's access list bind `system/health/<service>/<instance>` to its user.",
    ),
    Row(
        "H13",
        "Something that says it is of a later version, so that nobody repairs over it",
        "Left alone only where somebody trusted signed it; repaired over otherwise.",
        "The frame of an envelope, key id, signature and body, is the same in all versions.",
        (
            _GOSSIP + "test_rules_newer.py::test_a_later_version_that_nobody_trusted_signed_is_repaired",
            _GOSSIP + "test_rules_newer.py::test_anyone_s_later_version_of_the_trust_document_is_repaired",
        ),
    ),
    Row(
        "H14",
        "One writer alone, where two persons are demanded",
        "Void whatever way it comes, not stored, and repaired over. The command line refuses before it signs.",
        "Cosignatures are inside what is signed, and verified with every delta: an index vouches for its author only.",
        (
            _TRUST + "test_cosign.py::test_a_delta_counts_with_as_many_of_the_set_as_are_demanded",
            _GOSSIP + "test_rules_cosign.py::test_no_way_in_leads_around_the_rule",
            _GOSSIP + "test_rules_cosign.py::test_a_delta_without_consent_is_not_stored_and_is_repaired_over",
            "tests/cli/test_cosign.py::test_a_push_that_needs_consent_goes_from_hand_to_hand",
        ),
    ),
    Row(
        "H15",
        "Around a demand: a key above, a wider scope, a floor that voids what two persons set",
        "Void.",
        "A demand is met by whatever can change what shows under its grant; who is bound by one signs no floor there.",
        (
            _TRUST + "test_cosign.py::test_no_key_above_and_no_wider_scope_leads_around_a_demand",
            _TRUST + "test_cosign.py::test_a_floor_of_a_writer_who_needs_consent_does_not_count",
            _GOSSIP + "test_rules_cosign.py::test_a_floor_of_a_writer_who_needs_consent_takes_nothing_away",
        ),
    ),
    Row(
        "H16",
        "A consent to one thing, used for another: body, author, fleet, kind; doubled, reordered, added afterwards",
        "Void or malformed.",
        "A purpose of its own, with fleet and author inside; each key once, in one order; the digest covers them.",
        (
            _TRUST + "test_cosign.py::test_a_consent_counts_for_one_fleet_author_and_body",
            _TRUST + "test_cosign.py::test_a_consent_is_no_signature_of_a_delta",
            _TRUST + "test_cosign.py::test_cosignatures_have_one_order_and_each_key_one_place",
            _TRUST + "test_cosign.py::test_no_flipped_bit_of_a_cosigned_delta_is_valid",
            _TRUST + "test_cosign.py::test_no_flipped_bit_is_valid_when_the_author_signs_it_again",
        ),
    ),
    Row(
        "H17",
        "An old draft, published when something else was set meanwhile",
        "Refused: it would replace what its cosigners never saw. One that was published by force is a conflict.",
        "The draft fixes the epoch and what it replaces.",
        ("tests/cli/test_cosign.py::test_a_draft_is_refused_when_someone_was_faster",),
    ),
    Row(
        "H18",
        "A cosigner's key is stolen",
        "What rests on its consent falls with it, or stands by endorsement.",
        "A compromised key consents to nothing; a retired one up to its retirement.",
        (
            _TRUST + "test_cosign.py::test_a_cosigner_counts_while_active_and_up_to_a_retirement",
            _GOSSIP + "test_rules_cosign.py::test_what_rests_on_a_stolen_consent_falls_and_stands_by_endorsement",
            _GOSSIP + "test_rules_cosign.py::test_needs_tells_what_falls_with_a_key",
        ),
    ),
    Row(
        "H19",
        "Author and cosigner are one person, or lie on one host",
        "Not defended: two keys are counted, and not who holds them.",
        "Keep the keys on hosts of different people. `keys grant` names writers of whom no consent is demanded.",
    ),
    Row(
        "H20",
        "A rotation of secrets, to put back a value that somebody replaced meanwhile",
        "It is read again, and what stands now is rotated.",
        "What is signed anew says which delta it replaces, and replaces that or nothing.",
        (
            _ROTATION + "test_what_was_set_meanwhile_is_not_put_back",
            _ROTATION + "test_no_worker_is_ever_without_its_value_while_secrets_are_rotated_under_load",
        ),
    ),
    Row(
        "H21",
        "A planted key file that asks for more memory and work than there is",
        "Refused before any work is done.",
        "What a locked file may ask for is bounded.",
        (_TRUST + "test_locked.py::test_what_is_no_locked_key_or_asks_for_too_much_is_refused",),
    ),
    Row(
        "H22",
        "A draft that shows its cosigner something else than it says",
        "What is shown is what is signed; what this release can't show is not cosigned.",
        "Whatever came from outside is made printable, line breaks too; a body with unknown parts is refused.",
        ("tests/cli/test_cosign.py::test_who_consents_sees_what_is_there_and_nothing_that_only_looks_so",),
    ),
)
