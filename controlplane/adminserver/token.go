package adminserver

import (
	"encoding/binary"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/policy"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// resumeKind is the kind of a watch's tokens. It is the name of no request.
	resumeKind = "resume"
)

// pageSize returns how many items a page has: 100 when unset, at most 1,000.
func pageSize(requested int32) int {
	if requested == 0 {
		return defaultPageSize
	}
	return int(min(requested, maxPageSize))
}

// domainPageSize returns how many domains a page has: 1,000 when unset, at most 10,000.
func domainPageSize(requested int32) int {
	if requested == 0 {
		return maxPageSize
	}
	return int(min(requested, policy.MaxInlineDomains))
}

// parsePageToken returns the key that the token of a request holds; "" for the first page. An error is a
// *ruleset.FieldError on `page_token`.
func parsePageToken(request token.List) (after string, err error) {
	if after, err = token.ParsePage(request); err != nil {
		return "", badPageToken(request)
	}
	return after, nil
}

func badPageToken(request token.List) error {
	return &ruleset.FieldError{
		Field: "page_token", Value: request.GetPageToken(),
		Reason: "is not the next_page_token of a page of this list: all but page_size must be as it was for that page",
	}
}

// resumeToken returns the token of a position in a watch.
func resumeToken(storeID string, revision uint64) string {
	return token.Seal(resumeKind, string(binary.BigEndian.AppendUint64(nil, revision))+storeID)
}

// parseResumeToken returns what the token was made of, which need not be this store.
func parseResumeToken(resume string) (storeID string, revision uint64, err error) {
	text, err := token.Open(resumeKind, resume)
	if err != nil || len(text) < 8 {
		return "", 0, &ruleset.FieldError{Field: "resume_token", Value: resume, Reason: "is not the resume_token of a response of this watch"}
	}
	return text[8:], binary.BigEndian.Uint64([]byte(text)), nil
}
