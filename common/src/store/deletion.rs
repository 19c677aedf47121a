//! Removes many objects.

use futures::stream::{self, StreamExt};
use object_store::ObjectStore;

use super::{Folder, StoreError};

impl Folder {
    /// Removes those of the objects that are there. A store may do it in any order; S3 takes up to 1,000
    /// with a request, Azure 256, and others one.
    ///
    /// # Errors
    /// As the store says, but never because an object is absent. The others may be gone or not.
    pub async fn delete_all(&self, paths: &[String]) -> Result<(), StoreError> {
        let places = paths.iter().map(|path| self.path(path)).collect::<Result<Vec<_>, _>>()?;
        let places = stream::iter(places).map(Ok).boxed();
        // Answers come in the order of the places.
        let mut answers = self.store.delete_stream(places).zip(stream::iter(paths));
        while let Some((answer, path)) = answers.next().await {
            match answer {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(self.error("delete", path, source)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{JSON, StoreOptions};

    #[tokio::test]
    async fn objects_that_are_absent_are_no_error_and_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let folder = Folder::open(&location, &StoreOptions::default()).unwrap();
        let path = |number: usize| format!("cat/%=caf%E9 {number}.json");
        for number in 0..30 {
            folder.put(&path(number), "{}", JSON).await.unwrap();
        }
        let paths: Vec<_> = (10..40).map(path).collect();
        folder.delete_all(&paths).await.unwrap();
        folder.delete_all(&paths).await.unwrap();
        folder.delete_all(&[]).await.unwrap();
        for number in 0..30 {
            assert_eq!(folder.exists(&path(number)).await.unwrap(), number < 10, "{number}");
        }
        std::fs::create_dir(directory.path().join("folder")).unwrap();
        let error = folder.delete_all(&["folder".to_owned()]).await.unwrap_err();
        assert!(error.to_string().contains("folder"), "{error}");
    }
}
