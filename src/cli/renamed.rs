//! Flags of `brolga run` that were renamed: the old name is answered with the new one.

/// The old flags, hidden from the help. None of them can be given.
#[derive(Debug, clap::Args)]
pub(super) struct RenamedFlags {
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "",
          value_parser = is_called("--checkpoint-log-mib"))]
    checkpoint_log_mb: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "",
          value_parser = is_called("--checkpoint-transfer-mib-s"))]
    checkpoint_transfer: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "",
          value_parser = is_called("--no-syscall-filter"))]
    no_backstop: Option<String>,
}

/// A parser that accepts no value and names the flag's new name.
fn is_called(
    name: &'static str,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |_| Err(format!("this flag is called {name} now"))
}
