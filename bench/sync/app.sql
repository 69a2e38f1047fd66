\set id random(1, :rows)
UPDATE bench.replies SET likes = likes + 1, edited_at = now() WHERE id = :id;
