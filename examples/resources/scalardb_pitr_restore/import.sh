# By the restore's name. Its record is read from the provider's catalog.
terraform import scalardb_pitr_restore.staging staging
