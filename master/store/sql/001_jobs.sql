-- Version 1 of the job table. Times are wall-clock seconds since the epoch.
-- A job is open while `state` is NULL; which of the open ones are leased is known
-- only to the memory of the core.

CREATE TABLE meta (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    epoch           INTEGER NOT NULL,  -- rises with each opening
    last_job        INTEGER NOT NULL,  -- numbers are never given twice,
    last_submission INTEGER NOT NULL,  -- also after the rows are gone
    last_token      INTEGER NOT NULL,  -- high-water mark of fencing tokens
    last_segment    INTEGER NOT NULL,
    failed_commits  INTEGER NOT NULL
) STRICT;

INSERT INTO meta VALUES (1, 0, 0, 0, 0, 0, 0);

CREATE TRIGGER meta_only_rises BEFORE UPDATE ON meta
WHEN NEW.epoch < OLD.epoch
  OR NEW.last_job < OLD.last_job
  OR NEW.last_submission < OLD.last_submission
  OR NEW.last_token < OLD.last_token
  OR NEW.last_segment < OLD.last_segment
BEGIN
    SELECT RAISE(ABORT, 'a number of meta may only rise');
END;

CREATE TABLE submissions (
    submission   INTEGER PRIMARY KEY,
    submitted_at REAL NOT NULL,
    open         INTEGER NOT NULL CHECK (open IN (0, 1))
) STRICT;

CREATE INDEX submissions_open ON submissions (submission) WHERE open = 1;

CREATE TABLE keys (
    key        TEXT PRIMARY KEY,
    submission INTEGER NOT NULL UNIQUE,
    digest     TEXT,
    created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_age ON keys (created_at);

-- Files of image bytes. What lies in a file beyond `end_bytes` was never accepted.
CREATE TABLE segments (
    segment     INTEGER PRIMARY KEY,
    end_bytes   INTEGER NOT NULL CHECK (end_bytes >= 0),
    images      INTEGER NOT NULL CHECK (images >= 0),
    image_bytes INTEGER NOT NULL CHECK (image_bytes >= 0)
) STRICT;

CREATE TABLE jobs (
    job           INTEGER PRIMARY KEY,
    submission    INTEGER NOT NULL REFERENCES submissions,
    name          TEXT NOT NULL,
    media_type    TEXT NOT NULL,
    segment       INTEGER NOT NULL,
    offset_bytes  INTEGER NOT NULL,
    size_bytes    INTEGER NOT NULL,
    crc32         INTEGER NOT NULL,
    submitted_at  REAL NOT NULL,
    deadline_at   REAL,
    state         TEXT CHECK (state IN ('succeeded', 'failed', 'cancelled')),
    attempts      INTEGER NOT NULL DEFAULT 0,
    started_at    REAL,
    finished_at   REAL,
    worker        TEXT,
    model         TEXT,
    token         INTEGER,
    top5          BLOB,  -- JSON
    timings       BLOB,  -- JSON
    error_code    TEXT,
    error_message TEXT NOT NULL DEFAULT '',
    CHECK ((state IS NULL) = (finished_at IS NULL))
) STRICT;

CREATE INDEX jobs_by_submission ON jobs (submission, state);
CREATE INDEX jobs_by_state ON jobs (state);

CREATE TRIGGER jobs_end_once BEFORE UPDATE ON jobs
WHEN OLD.state IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a job has one outcome and keeps it');
END;

CREATE TRIGGER jobs_open_stay BEFORE DELETE ON jobs
WHEN OLD.state IS NULL
BEGIN
    SELECT RAISE(ABORT, 'an open job may not be removed');
END;

-- The audit: rows are added, and go only after their job is gone.
CREATE TABLE attempts (
    job           INTEGER NOT NULL,
    token         INTEGER NOT NULL,
    worker        TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    granted_at    REAL NOT NULL,
    started_at    REAL,
    ended_at      REAL NOT NULL,
    blamed        INTEGER NOT NULL CHECK (blamed IN (0, 1)),
    error_code    TEXT,
    error_message TEXT NOT NULL,
    PRIMARY KEY (job, token)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER attempts_never_change BEFORE UPDATE ON attempts
BEGIN
    SELECT RAISE(ABORT, 'the audit of attempts is append-only');
END;

CREATE TRIGGER attempts_go_with_their_job BEFORE DELETE ON attempts
WHEN EXISTS (SELECT 1 FROM jobs WHERE jobs.job = OLD.job)
BEGIN
    SELECT RAISE(ABORT, 'the audit of attempts goes only with its job');
END;
