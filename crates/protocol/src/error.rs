//! Errors that a user sees: a stable code, the cause, and what to do. All codes are declared here, and
//! `docs/errors.md` is generated from them.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$meta:meta])* $variant:ident = $name:literal, $doc:literal, $remedy:literal;)*) => {
        /// What went wrong, as a stable name that programs may match on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $doc] #[serde(rename = $name)] $variant,)*
            /// A code that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* Self::Unknown => "unknown" }
            }

            /// One sentence for the documentation.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* Self::Unknown => "A code that this version does not know." }
            }

            /// What to do when the error itself has nothing better to say.
            #[must_use]
            pub const fn default_remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* Self::Unknown => "update host-agent" }
            }
        }
    };
}

error_codes! {
    // The request.
    InvalidRequest = "invalid_request", "A field of the request is out of its bounds.", "correct the request and send it again";
    UnknownLanguage = "unknown_language", "No language has that name.", "use one of python, bash, node, ruby, rust";
    EmptyCode = "empty_code", "There is no code to run.", "give the code with --code, as a file, or on standard input";
    CodeTooLarge = "code_too_large", "The code is over its limit.", "keep the code under 1 MiB and send data as files";
    CodeNotText = "code_not_text", "The code is not UTF-8 text, or has a NUL byte.", "send UTF-8 text without NUL bytes";
    InvalidTimeout = "invalid_timeout", "The timeout is not above 0 and at most 3600 seconds.", "give a timeout in that range";
    UnreadableInput = "unreadable_input", "A file named on the command line cannot be read.", "check the path and its permissions";
    // The host.
    KernelMissing = "kernel_missing", "There is no guest kernel.", "run `host-agent setup`, or name one with --kernel";
    TemplateMissing = "template_missing", "The template's root filesystem is not there.", "run `host-agent setup --template NAME`";
    ImageInvalid = "image_invalid", "A kernel or root filesystem is truncated or not what it should be.", "run `host-agent setup --force`, or name an intact file";
    SnapshotMissing = "snapshot_missing", "There is no snapshot for this template, machine and VMM.", "run `host-agent template build NAME`";
    SnapshotInvalid = "snapshot_invalid", "A snapshot does not match its manifest, its signature or this host.", "run `host-agent template build --force NAME`";
    SigningKeyUnusable = "signing_key_unusable", "The key that snapshots are signed with is missing, unsafe or damaged.", "run `host-agent signing-key show` and see the cause";
    SetupRefused = "setup_refused", "Something is missing and --no-setup forbids making it.", "run `host-agent setup`";
    SetupFailed = "setup_failed", "A kernel or root filesystem could not be made.", "see the cause; `host-agent doctor` lists what is missing";
    ToolMissing = "tool_missing", "A program that set-up needs is not installed.", "install the package that the error names";
    DownloadFailed = "download_failed", "A download failed or did not match its checksum.", "check the network, or fetch the file by other means";
    StateUnusable = "state_unusable", "The state or runtime directory cannot be used.", "check the directory's owner and permissions, or name another";
    DiskFull = "disk_full", "The host's disk is full.", "free space in the state and runtime directories";
    VmmMissing = "vmm_missing", "The virtual machine monitor is not installed.", "run `host-agent doctor` for the command that installs it";
    VmmUnsupported = "vmm_unsupported", "This version of the virtual machine monitor is not supported.", "install a supported version; see the documentation";
    KvmUnusable = "kvm_unusable", "/dev/kvm is missing, forbidden, or runs no guest.", "use --backend qemu, which can emulate, or run on a machine with KVM";
    IsolationFailed = "isolation_failed", "A layer of the isolation between a machine and the host cannot be applied.", "see the cause; a host whose kernel has namespaces, seccomp and BPF has what it takes";
    VmmFailed = "vmm_failed", "The virtual machine monitor could not be started or refused a request.", "see the cause; --keep-console keeps the guest's console";
    VmmDied = "vmm_died", "The virtual machine monitor ended in mid-run.", "see the host's kernel log for an out-of-memory kill";
    GuestSilent = "guest_silent", "The guest did not answer in time.", "look at the guest's console with --keep-console";
    GuestProtocol = "guest_protocol", "The guest sent something that is not the protocol.", "the guest may be compromised or the image too old; run `host-agent setup --force`";
    ServiceMismatch = "service_mismatch", "The service cannot make the machine that the job insists on.", "run with --cold, which goes without the service";
    QueueFull = "queue_full", "More jobs wait than the service takes, or this one would wait longer than it can.", "try again later, or start the service with larger --jobs or --queue";
    ServiceUnreachable = "service_unreachable", "The service that was named cannot be reached.", "check the URL, and that `host-agent serve --listen` runs there";
    Unauthorized = "unauthorized", "The request has no key that is good.", "send `Authorization: Bearer KEY`; `host-agent api-key create` makes one";
    Forbidden = "forbidden", "Whoever asks may not do this.", "use a key that has the scope, or be the user who runs the service";
    RateLimited = "rate_limited", "The key was used more often than it may be.", "try again later";
    NotFound = "not_found", "There is nothing at that path.", "see /v1/openapi.json or /docs for what there is";
    MethodNotAllowed = "method_not_allowed", "The path has other methods.", "use one of those that the Allow header names";
    NotAcceptable = "not_acceptable", "The answer cannot have any of the types that the request accepts.", "accept application/json, or text/event-stream where jobs run";
    UnsupportedMediaType = "unsupported_media_type", "The body of the request is not of a type that is read here.", "send JSON, not compressed, with Content-Type: application/json";
    RequestTooLarge = "request_too_large", "The request has more bytes than are read.", "send less, or less at a time";
    RequestTimeout = "request_timeout", "The request did not come whole in time.", "send it again, and all of it at once";
    IdempotencyMismatch = "idempotency_mismatch", "The Idempotency-Key was used with another request before.", "give each request a key of its own, and send the same request with the same key";
    Cancelled = "cancelled", "The job was interrupted.", "run it again";
    Internal = "internal", "A fault of host-agent itself.", "please report it with the trace id";
    // The guest-runner.
    LanguageMissing = "language_missing", "The guest has no interpreter for that language.", "use a template that has it";
    LimitUnsupported = "limit_unsupported", "A limit was asked for that this guest cannot apply.", "leave the limit out, or use a guest kernel with cgroup v2";
    ConfineFailed = "confine_failed", "The guest could not confine the code, so it did not run it.", "see the cause; the guest's kernel may lack a feature";
    UnknownRequest = "unknown_request", "The guest-runner does not know that request.", "update the guest image";
}

/// By hand: the derive does not see names that a macro has passed on.
#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for ErrorCode {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let names = Self::ALL.iter().map(|code| code.name());
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .description(Some(
                "What went wrong, as a stable name that programs may match on.",
            ))
            .enum_values(Some(names.chain([Self::Unknown.name()])))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for ErrorCode {
    fn name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error as a client sees it. Displays as one line, `cause; remedy`: control characters, which may come from a guest,
/// are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostError {
    /// Which kind; stable.
    pub code: ErrorCode,
    /// What happened, with the path, number or answer that it is about.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
    /// The job it belongs to; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
}

impl HostError {
    /// An error with the code's default remedy.
    #[must_use]
    pub fn new(code: ErrorCode, cause: impl Into<String>) -> Self {
        Self {
            code,
            cause: cause.into(),
            remedy: code.default_remedy().to_owned(),
            trace_id: String::new(),
        }
    }

    /// The same error with a better remedy.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: remedy.into(),
            ..self
        }
    }

    /// The same error, of that job.
    #[must_use]
    pub fn trace_id(self, trace_id: impl Into<String>) -> Self {
        Self {
            trace_id: trace_id.into(),
            ..self
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, &self.cause)?;
        f.write_str("; ")?;
        escape(f, &self.remedy)
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|character| {
        if character.is_control() {
            write!(f, "{}", character.escape_default())
        } else {
            f.write_char(character)
        }
    })
}

impl std::error::Error for HostError {}
