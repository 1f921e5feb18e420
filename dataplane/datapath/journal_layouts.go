package datapath

import (
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// Keys of meta, each followed by a layout.
const (
	descriptionPrefix = "layout/"
	inheritedPrefix   = "inherited/"
)

var errNoDescription = errors.New("the journal has no description of this layout")

// describe leaves the description of this build's layout for other builds.
func (j *journal) describe() error { return j.putJSON(descriptionPrefix, layout, described()) }

// description returns how maps of a layout are to be read.
func (j *journal) description(layout string) (d description, err error) {
	found, err := j.getJSON(descriptionPrefix, layout, &d)
	if err == nil && !found {
		err = errNoDescription
	}
	return d, err
}

// putInherited writes down what was counted before a layout's own counters began.
func (j *journal) putInherited(layout string, counters inherited) error {
	return j.putJSON(inheritedPrefix, layout, counters)
}

func (j *journal) inherited(layout string) (counters inherited, err error) {
	_, err = j.getJSON(inheritedPrefix, layout, &counters)
	return counters, err
}

// forgetLayout drops what is written down of a layout whose pins are gone.
func (j *journal) forgetLayout(layout string) error {
	return j.update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		return errors.Join(meta.Delete([]byte(descriptionPrefix+layout)), meta.Delete([]byte(inheritedPrefix+layout)))
	})
}

func (j *journal) putJSON(prefix, layout string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s%s: %w", prefix, layout, err)
	}
	return j.update(func(tx *bbolt.Tx) error { return putMeta(tx, []byte(prefix+layout), text) })
}

func (j *journal) getJSON(prefix, layout string, value any) (found bool, err error) {
	err = j.view(func(tx *bbolt.Tx) error {
		text, err := getMeta(tx, []byte(prefix+layout))
		if found = text != nil; !found {
			return err
		}
		return json.Unmarshal(text, value)
	})
	if err != nil {
		return false, fmt.Errorf("read %s%s: %w", prefix, layout, err)
	}
	return found, nil
}
