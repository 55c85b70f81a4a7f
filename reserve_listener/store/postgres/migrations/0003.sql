-- How often somebody has made deliveries pending again: each beat compares it, since a notice may be lost, or there are none.
CREATE TABLE reopenings (one boolean PRIMARY KEY DEFAULT true CHECK (one), number bigint NOT NULL);
INSERT INTO reopenings (number) VALUES (0);
