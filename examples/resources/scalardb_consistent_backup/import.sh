# By the backup's name. Its manifest is read from the provider's catalog.
terraform import scalardb_consistent_backup.release before-1.4.0
