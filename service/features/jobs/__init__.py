"""Administration of jobs: `/v1/admin/jobs`."""
