-- A data directory as the first release left it, written out by hand: the schema is a copy
-- on purpose, so that a later change of `001_jobs.sql` does not change what is tested.
PRAGMA application_id = 1280266059;
PRAGMA user_version = 1;
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, last_job INTEGER NOT NULL, last_submission INTEGER NOT NULL, last_token INTEGER NOT NULL, last_segment INTEGER NOT NULL, failed_commits INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES (1, 4, 12, 9, 4096, 2, 0);
CREATE TABLE submissions (submission INTEGER PRIMARY KEY, submitted_at REAL NOT NULL, open INTEGER NOT NULL CHECK (open IN (0, 1))) STRICT;
CREATE INDEX submissions_open ON submissions (submission) WHERE open = 1;
INSERT INTO submissions VALUES (8, 1700000000.0, 0), (9, 1700000001.0, 1);
CREATE TABLE keys (key TEXT PRIMARY KEY, submission INTEGER NOT NULL UNIQUE, digest TEXT, created_at REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_age ON keys (created_at);
INSERT INTO keys VALUES ('k8', 8, 'd8', 1700000000.0), ('k9', 9, NULL, 1700000001.0);
CREATE TABLE segments (segment INTEGER PRIMARY KEY, end_bytes INTEGER NOT NULL CHECK (end_bytes >= 0), images INTEGER NOT NULL CHECK (images >= 0), image_bytes INTEGER NOT NULL CHECK (image_bytes >= 0)) STRICT;
INSERT INTO segments VALUES (2, 15, 3, 15);
CREATE TABLE jobs (job INTEGER PRIMARY KEY, submission INTEGER NOT NULL REFERENCES submissions, name TEXT NOT NULL, media_type TEXT NOT NULL, segment INTEGER NOT NULL, offset_bytes INTEGER NOT NULL, size_bytes INTEGER NOT NULL, crc32 INTEGER NOT NULL, submitted_at REAL NOT NULL, deadline_at REAL, state TEXT CHECK (state IN ('succeeded', 'failed', 'cancelled')), attempts INTEGER NOT NULL DEFAULT 0, started_at REAL, finished_at REAL, worker TEXT, model TEXT, token INTEGER, top5 BLOB, timings BLOB, error_code TEXT, error_message TEXT NOT NULL DEFAULT '', CHECK ((state IS NULL) = (finished_at IS NULL))) STRICT;
CREATE INDEX jobs_by_submission ON jobs (submission, state);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TRIGGER jobs_end_once BEFORE UPDATE ON jobs WHEN OLD.state IS NOT NULL BEGIN SELECT RAISE(ABORT, 'a job has one outcome and keeps it'); END;
CREATE TRIGGER jobs_open_stay BEFORE DELETE ON jobs WHEN OLD.state IS NULL BEGIN SELECT RAISE(ABORT, 'an open job may not be removed'); END;
CREATE TABLE attempts (job INTEGER NOT NULL, token INTEGER NOT NULL, worker TEXT NOT NULL, outcome TEXT NOT NULL, granted_at REAL NOT NULL, started_at REAL, ended_at REAL NOT NULL, blamed INTEGER NOT NULL CHECK (blamed IN (0, 1)), error_code TEXT, error_message TEXT NOT NULL, PRIMARY KEY (job, token)) STRICT, WITHOUT ROWID;
CREATE TRIGGER attempts_never_change BEFORE UPDATE ON attempts BEGIN SELECT RAISE(ABORT, 'the audit of attempts is append-only'); END;
CREATE TRIGGER attempts_go_with_their_job BEFORE DELETE ON attempts WHEN EXISTS (SELECT 1 FROM jobs WHERE jobs.job = OLD.job) BEGIN SELECT RAISE(ABORT, 'the audit of attempts goes only with its job'); END;
-- The images are 'hello', 'world' and 'again', with their CRC-32.
INSERT INTO jobs VALUES (10, 8, 'a.jpg', 'image/jpeg', 2, 0, 5, 907060870, 1700000000.0, NULL, 'succeeded', 1, 1700000000.5, 1700000000.9, 'w1', 'm1', 7, CAST('[{"label":"cat"}]' AS BLOB), CAST('{}' AS BLOB), NULL, '');
INSERT INTO jobs VALUES (11, 8, 'b.jpg', 'image/jpeg', 2, 5, 5, 980881731, 1700000000.0, 1700009999.0, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO jobs VALUES (12, 9, 'c.jpg', 'image/png', 2, 10, 5, 2476825596, 1700000001.0, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO attempts VALUES (10, 7, 'w1', 'succeeded', 1700000000.2, 1700000000.5, 1700000000.9, 0, NULL, '');
INSERT INTO attempts VALUES (11, 5, 'w2', 'lost', 1700000000.2, 1700000000.5, 1700000000.9, 1, 'worker_lost', 'the socket closed');
