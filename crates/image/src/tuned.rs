//! stub
use crate::{ImageError, mirror::Mirror, progress::Report};
use std::path::Path;
pub(crate) fn build(_m: Option<&Mirror>, _d: &Path, _w: &Path, _r: Report<'_>) -> Result<(), ImageError> {
    Err(ImageError::UnknownKernel { name: "tuned".into() })
}
