"""What `fleet worker` does by schedule: one function per job, each in its own file, all of them in `schedule.JOBS`."""
