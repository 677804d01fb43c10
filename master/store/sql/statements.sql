-- Every statement of the store, by name. `{rows}` stands for rows of parameters: a group
-- commit hands over all rows of one kind in one statement, padded with NULLs to a power
-- of two (see `statements.py` for why).

-- name: add_submissions
INSERT INTO submissions (submission, submitted_at, open)
SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL

-- name: add_keys
INSERT INTO keys (key, submission, digest, created_at)
SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL

-- name: add_jobs
INSERT INTO jobs (
    job, submission, name, media_type, segment, offset_bytes, size_bytes, crc32,
    submitted_at, deadline_at
)
SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL

-- name: grow_segments
INSERT INTO segments (segment, end_bytes, images, image_bytes)
SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL
ON CONFLICT (segment) DO UPDATE SET
    end_bytes = max(end_bytes, excluded.end_bytes),
    images = images + excluded.images,
    image_bytes = image_bytes + excluded.image_bytes

-- name: seal
UPDATE submissions SET open = 0 WHERE submission = ?1

-- name: set_digest
UPDATE keys SET digest = ?2 WHERE submission = ?1

-- name: drop_key
DELETE FROM keys WHERE submission = ?1

-- name: drop_expired_keys
DELETE FROM keys
WHERE key IN (SELECT column1 FROM (VALUES {rows})) AND created_at < ?

-- name: drop_old_keys
DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE created_at < ?1 LIMIT ?2)

-- name: drop_oldest_keys
DELETE FROM keys WHERE key IN (SELECT key FROM keys ORDER BY created_at LIMIT ?1)

-- name: count_keys
SELECT count(*) FROM keys

-- name: end_jobs
UPDATE jobs SET
    state = ends.column2,
    attempts = ends.column3,
    finished_at = ends.column4,
    started_at = ends.column5,
    worker = ends.column6,
    model = ends.column7,
    token = ends.column8,
    top5 = ends.column9,
    timings = ends.column10,
    error_code = ends.column11,
    error_message = ends.column12
FROM (VALUES {rows}) AS ends
WHERE jobs.job = ends.column1 AND jobs.state IS NULL

-- name: which_open
SELECT job FROM jobs
WHERE job IN (SELECT column1 FROM (VALUES {rows})) AND state IS NULL

-- name: add_attempts
INSERT OR IGNORE INTO attempts (
    job, token, worker, outcome, granted_at, started_at, ended_at, blamed, error_code,
    error_message
)
SELECT * FROM (VALUES {rows}) WHERE column1 IN (SELECT job FROM jobs)

-- name: raise_meta
UPDATE meta SET
    last_job = max(last_job, ?1),
    last_submission = max(last_submission, ?2),
    last_token = max(last_token, ?3),
    last_segment = max(last_segment, ?4)

-- name: count_failure
UPDATE meta SET failed_commits = failed_commits + 1

-- name: raise_epoch
UPDATE meta SET epoch = epoch + 1

-- name: meta
SELECT epoch, last_job, last_submission, last_token, last_segment FROM meta

-- name: ended_jobs
SELECT job FROM jobs WHERE state IS NOT NULL ORDER BY job DESC

-- name: which_ended
SELECT job, state, submission, segment, offset_bytes, size_bytes FROM jobs
WHERE job IN (SELECT column1 FROM (VALUES {rows})) AND state IS NOT NULL

-- name: remove_jobs
DELETE FROM jobs WHERE job IN (SELECT column1 FROM (VALUES {rows}))

-- name: remove_attempts
DELETE FROM attempts WHERE job IN (SELECT column1 FROM (VALUES {rows}))

-- name: shrink_segments
UPDATE segments SET
    images = images - gone.column2,
    image_bytes = image_bytes - gone.column3
FROM (VALUES {rows}) AS gone
WHERE segments.segment = gone.column1

-- name: empty_segments
SELECT segment FROM segments WHERE images = 0 AND segment <> ?1

-- name: drop_segments
DELETE FROM segments WHERE images = 0 AND segment <> ?1

-- name: remove_empty_submissions
DELETE FROM submissions
WHERE submission IN (SELECT column1 FROM (VALUES {rows}))
  AND open = 0
  AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.submission = submissions.submission)

-- name: segments
SELECT segment, end_bytes, images, image_bytes FROM segments ORDER BY segment

-- name: counts
SELECT coalesce(state, 'open'), count(*) FROM jobs INDEXED BY jobs_by_state GROUP BY state

-- name: cancel_abandoned
UPDATE jobs SET
    state = 'cancelled',
    attempts = (SELECT count(*) FROM attempts WHERE attempts.job = jobs.job),
    finished_at = ?1,
    error_code = 'submission_abandoned',
    error_message = 'the master stopped before the whole submission was received'
WHERE state IS NULL
  AND submission IN (SELECT submission FROM submissions WHERE open = 1)

-- name: drop_abandoned_keys
DELETE FROM keys WHERE submission IN (SELECT submission FROM submissions WHERE open = 1)

-- name: remove_abandoned
DELETE FROM submissions
WHERE open = 1
  AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.submission = submissions.submission)

-- name: seal_abandoned
UPDATE submissions SET open = 0 WHERE open = 1

-- name: unfinished
SELECT job, size_bytes, deadline_at FROM jobs INDEXED BY jobs_by_state
WHERE state IS NULL AND job > ?1 ORDER BY job LIMIT ?2

-- name: unfinished_attempts
-- The attempts that count against a job: they failed, and had begun. One that was lost or
-- taken back before it began is no fault of the job.
SELECT job, worker, blamed FROM attempts
WHERE job BETWEEN ?1 AND ?2
  AND (outcome = 'errored' OR (outcome IN ('expired', 'lost') AND started_at IS NOT NULL))
  AND EXISTS (SELECT 1 FROM jobs WHERE jobs.job = attempts.job AND jobs.state IS NULL)
ORDER BY job, token

-- name: image
SELECT {columns}, segment, offset_bytes, crc32 FROM jobs WHERE job = ?1

-- name: places
SELECT job, name, segment, offset_bytes, size_bytes, crc32 FROM jobs
WHERE job IN (SELECT column1 FROM (VALUES {rows}))

-- name: jobs
SELECT {columns} FROM jobs WHERE job IN (SELECT column1 FROM (VALUES {rows}))

-- name: page_all
SELECT {columns} FROM jobs WHERE job < ?1 ORDER BY job DESC LIMIT ?2

-- name: submission
SELECT submitted_at, open FROM submissions WHERE submission = ?1

-- name: submission_counts
SELECT coalesce(state, 'open'), count(*) FROM jobs INDEXED BY jobs_by_submission
WHERE submission = ?1 GROUP BY state

-- name: submission_jobs
SELECT job FROM jobs INDEXED BY jobs_by_submission WHERE submission = ?1 ORDER BY job

-- name: key
SELECT keys.key, keys.submission, keys.digest, coalesce(submissions.open, 0), keys.created_at
FROM keys LEFT JOIN submissions ON submissions.submission = keys.submission
WHERE keys.key = ?1
