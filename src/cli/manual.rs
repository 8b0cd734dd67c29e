//! Man pages and completions, written by the programs themselves, so that they say what these do.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// Writes `man/*.1` and `completions/*` of `command` into `dir`.
///
/// # Errors
/// If that cannot be done.
pub fn write(mut command: Command, dir: &Path) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(without_help(command.clone()), &man)?;
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, &completions)?;
    }
    Ok(())
}

/// `ingestor help` needs no page of its own, nor does the help of each command.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_each_shell_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        let command = Command::new("a").subcommand(Command::new("b").subcommand(Command::new("c")));
        write(command, dir.path()).unwrap();
        let names = |of: &str| {
            let entries = fs::read_dir(dir.path().join(of)).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names("man"), ["a-b-c.1", "a-b.1", "a.1"]);
        assert_eq!(names("completions"), ["_a", "a.bash", "a.fish"]);
    }
}
