use super::fault::{RAISE, ROW_SECURITY};
use super::*;
use crate::postgres::table::PRIMARY_KEY;

fn fault(code: &str) -> Fault {
    Fault::of(code, &ErrorFields::default())
}

#[test]
fn the_tables_own_mistakes_are_known() {
    let duplicate = |constraint| {
        let fields = ErrorFields { constraint: Some(constraint), ..ErrorFields::default() };
        Failure::of_code("23505", "duplicate key value", &fields)
    };
    let is_tables = |failure| match failure {
        Failure::Refused(refusal) => refusal.is_tables,
        _ => false,
    };
    assert!(!is_tables(duplicate("somebodys_own_key")));
    let Failure::Refused(sequence_is_behind) = duplicate(PRIMARY_KEY) else { panic!() };
    assert!(sequence_is_behind.is_tables);
    assert!(sequence_is_behind.advice.unwrap().contains("setval"));
    assert_eq!(fault("2200H"), Fault::Table);
    assert_eq!(fault("23514"), Fault::Table, "there is no partition");
    let check = ErrorFields { constraint: Some("no_poison"), ..ErrorFields::default() };
    assert_eq!(Fault::of("23514", &check), Fault::Row);
    assert_eq!(fault("22003"), Fault::Row);
    let id = ErrorFields { routine: Some("int84"), ..ErrorFields::default() };
    assert_eq!(Fault::of("22003", &id), Fault::Table);
}

#[test]
fn what_postgresql_says_about_a_statement_may_be_a_rows_fault_whatever_the_code() {
    let codes = [
        "22000", "22001", "22003", "22008", "22012", "22021", "22P02", "22P05", "23000", "23502",
        "23503", "23505", "23P01", "0A000", "21000", "54000", "55000", "P0001", "HV000", "XX000",
        "XX001", "99999", "", "2", "é2000",
    ];
    for code in codes {
        assert_eq!(fault(code), Fault::Row, "{code}");
    }
}

#[test]
fn what_says_nothing_of_a_row_is_the_servers() {
    let codes = [
        // connection
        "08000", "08001", "08003", "08004", "08006", "08P01", // login and database
        "28000", "28P01", "3D000", "3F000",
        // read-only standby, other transaction states
        "25006", "25P02", // serialization, deadlock
        "40001", "40003", "40P01", // permission, missing or changed table
        "42501", "42601", "42703", "42804", "42883", "42P01", "42P05", "42P10", "26000",
        // disk, memory, connections, limits
        "53000", "53100", "53200", "53300", // locks
        "55006", "55P03", // shutdown, starting up, database dropped
        "57000", "57P01", "57P02", "57P03", "57P04", "57P05", // system
        "58000", "58030", "F0000",
    ];
    for code in codes {
        assert_eq!(fault(code), Fault::Server, "{code}");
    }
    let ends_the_connection = ErrorFields { is_fatal: true, ..ErrorFields::default() };
    assert_eq!(Fault::of("XX000", &ends_the_connection), Fault::Server);
    assert_eq!(fault("57014"), Fault::Slowness);
}

#[test]
fn what_a_trigger_says_is_about_the_row_whatever_the_code() {
    let raised =
        ErrorFields { routine: Some(RAISE), context: Some("f()"), ..ErrorFields::default() };
    for code in ["40001", "42501", "53100", "57014", "P0001", "23514"] {
        assert_eq!(Fault::of(code, &raised), Fault::Row, "{code}");
    }
    let met = ErrorFields { context: Some("f()"), ..ErrorFields::default() };
    assert_eq!(Fault::of("42P01", &met), Fault::Row);
    assert_eq!(Fault::of("40P01", &met), Fault::Server);
    let policy = ErrorFields { routine: Some(ROW_SECURITY), ..ErrorFields::default() };
    assert_eq!(Fault::of("42501", &policy), Fault::Row);
}

#[test]
fn a_null_in_a_column_that_readings_do_not_have_is_the_tables_mistake() {
    let of = |column| ErrorFields { column: Some(column), ..ErrorFields::default() };
    assert_eq!(Fault::of("23502", &of("site_id")), Fault::Table);
    assert_eq!(Fault::of("23502", &of("temperature")), Fault::Row);
}

#[test]
fn a_refusal_names_what_refuses_and_what_mends_it() {
    let refused = |code, fields: &ErrorFields<'_>| match Failure::of_code(code, "no", fields) {
        Failure::Refused(refusal) => refusal.with_advice(),
        other => panic!("{other:?}"),
    };
    let trigger = ErrorFields {
        context: Some("PL/pgSQL assignment\nPL/pgSQL function divide() line 3 at assignment"),
        ..ErrorFields::default()
    };
    assert_eq!(
        refused("22012", &trigger),
        "no (22012), by PL/pgSQL function divide() line 3 at assignment: correct the trigger's \
         function, or disable the trigger"
    );
    let check = ErrorFields {
        constraint: Some("cold"),
        table: Some("telemetry"),
        ..ErrorFields::default()
    };
    assert_eq!(
        refused("23514", &check),
        "no (23514), by constraint cold of telemetry: correct the constraint, or drop it"
    );
}

#[test]
fn nothing_met_while_connecting_is_blamed_on_the_rows() {
    let failure = Failure::of_code("22023", "invalid value for parameter", &ErrorFields::default());
    let failure = failure.into_unavailable("cannot connect to db:5432: ");
    assert_eq!(
        failure.to_string(),
        "cannot connect to db:5432: invalid value for parameter (22023)"
    );
    assert!(matches!(failure, Failure::Unavailable { .. }));
    assert_eq!(failure.sqlstate(), Some("22023"));
}

#[test]
fn a_value_that_the_driver_cannot_encode_is_a_rows_fault() {
    let failure = Failure::of_statement(sqlx::Error::Encode("too late".into()));
    assert!(matches!(failure, Failure::Refused(Refusal { is_tables: false, .. })));
}

#[test]
fn a_reason_is_one_line_with_the_code_and_the_way_out() {
    let failure = Failure::of_code(
        "42501",
        "permission denied\n for table telemetry",
        &ErrorFields::default(),
    );
    assert_eq!(
        failure.to_string(),
        "permission denied for table telemetry (42501): this role needs select and insert on \
         telemetry and telemetry_devices, update where mappings fill a table, and, to migrate, \
         create on the schema"
    );
    assert!(failure.is_configuration() && !failure.is_missing_table());
}
